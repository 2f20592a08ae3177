"""`python run_target.py TARGET WORK SECONDS`: fuzz one target with atheris, which does not return.

WORK/corpus grows, WORK/findings takes what a target raised for. Ends with another code than 0 when something was found.
With `keep` in place of the seconds nothing is fuzzed: what of WORK/corpus reaches code that the kept corpus does not is added to
it.
"""

import os
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["xetfs"]):
    from targets import TARGETS

MEMORY_MIB_MAX = 1024
INPUT_S_MAX = 10
KEPT_BYTES_MAX = 2048


def main() -> None:
    name, work, seconds = sys.argv[1], Path(sys.argv[2]).absolute(), sys.argv[3]
    target = TARGETS[name]
    grown, seeds, findings = work / "corpus" / name, work / "seeds" / name, work / "findings"
    for folder in (grown, seeds, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (seeds / f"{number}").write_bytes(seed)
    kept = Path(__file__).parent / "corpus" / name
    flags = [
        f"-max_len={target.length_max}",
        f"-max_total_time={seconds}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}",
        f"-timeout={INPUT_S_MAX}",
        f"-artifact_prefix={findings}/{name}-",
        f"-seed={int(os.environ.get('XETFS_FUZZ_SEED', '0')) % 2**32}",  # 0: another one each time
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    folders = [grown, seeds, kept]
    if seconds == "keep":
        kept.mkdir(parents=True, exist_ok=True)
        flags = ["-merge=1", f"-max_len={KEPT_BYTES_MAX}", "-verbosity=0"]
        folders = [kept, seeds, grown]
    command = f"{sys.executable} {__file__} {name} {work} keep"  # by which merging begins itself anew, with arguments of its own
    arguments = sys.argv[4:] or [*flags, *(str(folder) for folder in folders if folder.is_dir())]
    atheris.Setup([command, *arguments], target.run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
