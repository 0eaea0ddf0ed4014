"""Recognises files that operating systems, editors and tools leave next to the files of a corpus."""

import re

SYSTEM = "files of the operating system: ._NAME, .DS_Store, Thumbs.db and others (left out)"
BACKUP = "backup, lock and temporary files of editors (left out)"
HIDDEN = "hidden files and files in hidden folders (left out)"
_SYSTEM_FOLDERS = {
    *("__macosx", "$recycle.bin", "system volume information", "lost+found", "@eadir", ".appledouble", ".trashes"),
    *(".spotlight-v100", ".fseventsd", ".temporaryitems", ".documentrevisions-v100", ".trash", ".trash-1000"),
}
_SYSTEM_NAME = re.compile(
    r"\._.*|\.ds_store|\.localized|\.apdisk|icon\r|thumbs\.db|ehthumbs\.db|desktop\.ini|\.directory|\.nfs[0-9a-f]+"
    r"|\.fuse_hidden.*",
    re.IGNORECASE | re.DOTALL,
)
# Emacs: x~, #x#, .#x; vim: .x.swp, x~; LibreOffice: .~lock.x#; Word: ~$x; others: x.bak, x.orig and the like.
_BACKUP_NAME = re.compile(
    r".*~|#.*#|\.#.*|\..*\.sw[a-px]|\..*\.un~|\.~.*|~\$.*|~wr[ald]\d+\.tmp|\.goutputstream-.*|\.syncthing\..*|~syncthing~.*"
    r"|.*\.(bak|backup|bck|orig|old|rej|sav|swp|swo|tmp|temp)",
    re.IGNORECASE | re.DOTALL,
)
_BACKUP_FOLDERS = {".ipynb_checkpoints"}


def stray_reason(path: str, *, hidden: bool = True) -> str | None:
    """Returns why a file is no part of a corpus, judged by its path.

    Args:
        path: path relative to the corpus, with "/" as separator.
        hidden: if True, other hidden files and files in other hidden folders are left out too.

    Returns:
        The reason for the summary; None for any other file.
    """
    *folders, name = path.split("/")
    lower = {folder.lower() for folder in folders}
    if _SYSTEM_NAME.fullmatch(name) or lower & _SYSTEM_FOLDERS:
        return SYSTEM
    if _BACKUP_NAME.fullmatch(name) or lower & _BACKUP_FOLDERS:
        return BACKUP
    if hidden and any(part.startswith(".") for part in (*folders, name)):
        return HIDDEN
    return None
