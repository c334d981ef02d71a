"""Arrays in files: one file is whole at any moment, and nothing that is read is executed."""

from marginax.storage.atomic import replace_text as replace_text, replacing as replacing
from marginax.storage.digests import (
    DIGEST_SIZE as DIGEST_SIZE,
    check_file as check_file,
    file_digest as file_digest,
)
from marginax.storage.files import StorageError as StorageError, read as read, write as write
from marginax.storage.trees import (
    fill as fill,
    flatten as flatten,
    group as group,
    prefixed as prefixed,
)
