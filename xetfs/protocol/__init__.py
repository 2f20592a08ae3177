"""The XET and Hub wire formats: bytes and JSON in, values out. Nothing here waits, opens a file or looks at a clock."""
