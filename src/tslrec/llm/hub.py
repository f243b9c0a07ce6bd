"""The Hugging Face hub: its local cache, the commit of a repository, and the download of its weights."""

from __future__ import annotations

from pathlib import Path

from tslrec.llm.model_files import missing_part
from tslrec.system.errors import UserError
from tslrec.system.shown_values import shown

TIMEOUT_SECONDS = 3.0
"""How long to wait for the hub's answer to a request for metadata."""

DOWNLOADED = ["*.safetensors", "*.json", "*.txt", "*.jinja", "tokenizer.model"]
"""Patterns of the files that are downloaded from a repository: none of them can execute on loading."""

NETWORK_PACKAGES = ("httpx", "httpx2", "httpcore", "builtins", "ssl", "socket")
"""Packages whose exceptions mean that the hub could not be reached."""


def cached_folder(repository: str, revision: str | None) -> Path | None:
    """The folder of a repository's files in the hub's local cache; its name is the commit.

    Args:
        repository: id on the hub.
        revision: branch, tag or commit; None for the default branch.

    Returns:
        None if the cache has no complete model of that revision.

    Raises:
        UserError: if the id is no id of the hub.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except HFValidationError as error:
        raise UserError(
            f"llm.hub={shown(repository)}: is no id of the hub, such as OWNER/NAME; a folder is given as llm.path"
        ) from error
    return folder if missing_part(folder) is None else None


def find_commit(repository: str, revision: str | None, *, where: str, alternative: str) -> str:
    """Asks the hub for the commit of a revision.

    The answer also tells, before any training, whether the weights can be downloaded.

    Args:
        repository: id on the hub.
        revision: branch, tag or commit; None for the default branch.
        where: the beginning of an error message: which model of the configuration is meant.
        alternative: the end of an error message: what to do instead of fixing the hub.

    Returns:
        The commit's hash.

    Raises:
        UserError: if the hub cannot be reached or refuses the repository.
    """
    import huggingface_hub
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    url = huggingface_hub.hf_hub_url(repository, "config.json", revision=revision)
    try:
        metadata = huggingface_hub.get_hf_file_metadata(url, timeout=TIMEOUT_SECONDS)
    except OfflineModeIsEnabled:
        raise UserError(f"{where} is not in the local cache and HF_HUB_OFFLINE is set; unset it{alternative}") from None
    except GatedRepoError:
        page = f"{huggingface_hub.constants.ENDPOINT}/{repository}"
        raise UserError(
            f"{where} is gated; accept its licence at {page} and run `hf auth login`{alternative}"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{where} does not exist, or is private; correct llm.hub or run `hf auth login`{alternative}"
        ) from None
    except HfHubHTTPError as error:
        raise UserError(
            f"{where}: the hub answers {error.response.status_code}; check llm.revision{alternative}"
        ) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in NETWORK_PACKAGES:
            raise
        raise UserError(
            f"{where} is not in the local cache and the hub cannot be reached ({type(error).__name__}); connect"
            f"{alternative}"
        ) from None
    if metadata.commit_hash is None:
        raise UserError(f"{where}: {url} does not answer like a model hub; correct HF_ENDPOINT{alternative}")
    return metadata.commit_hash


def download(repository: str, revision: str | None, *, commit: str) -> Path:
    """Downloads a model into the hub's local cache and returns its folder there.

    Args:
        repository: id on the hub.
        revision: as configured. The cache files the download under this name, and finds it by this name later.
        commit: the commit that `find_commit` gave for it.

    Raises:
        UserError: if the revision points to another commit by now.
    """
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(repository, revision=revision, allow_patterns=DOWNLOADED))
    if folder.name != commit:
        raise UserError(
            f"{repository}: its revision moved from commit {commit[:12]} to {folder.name[:12]} during this run; "
            "run again"
        )
    return folder
