"""The working tree as git sees it: tracked files and new ones that are not ignored."""
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def tree_files(root: Path) -> list:  # paths relative to `root`, sorted
    "Files that are there and that a commit would hold."
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.split("\0")
    return sorted({Path(n) for n in names if n and (root / n).is_file()})


def copy_tree(root: Path, to: Path) -> Path:  # `to`
    "Copy the working tree, so that a check never changes the user's files."
    for name in tree_files(root):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(root / name, to / name)
    return to
