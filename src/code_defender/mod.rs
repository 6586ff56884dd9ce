//! What a Code Defender incident looks like, once Slack's wire format is read. Pure.
