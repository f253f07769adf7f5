"""Files of a dataset on the Hugging Face Hub, downloaded to its cache."""

import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from workflow_r1.data.errors import DataError

_ADDRESS = re.compile(r"hf://datasets/(?P<id>[^/]+/[^/@]+)(@(?P<revision>[^/]+))?/(?P<file>.+)")


def split_addresses(dataset_id: str, config: str | None = None) -> dict[str, list[str]]:
    """The `hf://` addresses of a dataset's files by split, as `datasets` resolves them; downloads none of them.

    Raises:
        DataError: the Hub cannot be reached, or has no such dataset or configuration.
    """
    from datasets import load_dataset_builder

    with _one_sentence(dataset_id):
        builder = load_dataset_builder(dataset_id, config)
    return {str(split): list(files) for split, files in (builder.config.data_files or {}).items()}


def download(address: str) -> Path:
    """A local copy of an `hf://` file; once it is in the Hub's cache, this works without a network too.

    Raises:
        DataError: as `split_addresses`, or the dataset has no such file.
    """
    from huggingface_hub import hf_hub_download

    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise DataError(f"{address} is not the address of a file in a dataset, hf://datasets/owner/name/file.")
    revision = unquote(parts["revision"]) if parts["revision"] else None
    with _one_sentence(parts["id"]):
        return Path(hf_hub_download(parts["id"], parts["file"], repo_type="dataset", revision=revision))


@contextmanager
def _one_sentence(dataset_id: str) -> Iterator[None]:
    import httpx
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        yield
    except (LocalEntryNotFoundError, ConnectionError, httpx.TransportError):
        raise DataError(
            f"The Hugging Face Hub cannot be reached for the dataset {dataset_id!r}: check the network, HF_ENDPOINT "
            "and HF_HUB_OFFLINE, or give the path of a local copy."
        ) from None
    except (DatasetNotFoundError, RepositoryNotFoundError):
        raise DataError(
            f"There is no path {dataset_id!r} here, and no public dataset of that name on the Hugging Face Hub: check "
            "the spelling, or log in with 'hf auth login'."
        ) from None
    except (EntryNotFoundError, ValueError, OSError, ImportError) as error:  # the last: httpx, about a SOCKS proxy
        reason = textwrap.shorten(str(error), width=400, placeholder=" ...")
        raise DataError(f"The Hub dataset {dataset_id!r} could not be used: {reason}") from None
