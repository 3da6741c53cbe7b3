"""Protocol 1 as its last release spoke it: fleet's model, messages and order bodies, unchanged. Not edited.

When PROTOCOL_MIN rises above 1, this folder goes; when PROTOCOL_MAX rises, the present messages get one like it.
"""
