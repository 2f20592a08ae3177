"""The `xetfs` command: the only room that reads arguments and environment, and prints.

main.py    the parser, and how every command ends
exits.py   exit codes
config.py  arguments and environment → Settings
mount.py   `xetfs mount`: what the process does that serves; daemon.py: how it goes into the background and reports
umount.py  `xetfs umount`
status.py  `xetfs status`
verify.py  `xetfs verify`
hub.py     `xetfs hub serve`
state.py   where logs and records of running mounts lie
log.py     how the log looks; redact.py: what it must not show

Importing any of these loads only the standard library and the light modules of ours (errors, settings, names), so that
`--help` and usage errors are quick; what is heavy is imported by the function that needs it.
"""
