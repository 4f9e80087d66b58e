"""The speech embedding in openWakeWord's wheel as a speech upstream."""
