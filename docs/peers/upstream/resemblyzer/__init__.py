"""The speaker encoder in Resemblyzer's wheel as a speech upstream."""
