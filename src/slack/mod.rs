//! Everything that knows Slack's wire formats, and nothing else does.
