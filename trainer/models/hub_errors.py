"""What can go wrong with a model of the Hugging Face hub, as errors to act on."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainer.contract.units import size
from trainer.models.errors import ModelError


class HubError(ModelError):
    """A model of the hub cannot be downloaded."""

    code = "hub"


class HubOffline(HubError):
    """The user forbids network access."""

    code = "hub_offline"
    what = "HF_HUB_OFFLINE is set and {name} is not in the cache ({cache})."
    remedy = "Unset HF_HUB_OFFLINE to download it, or give a folder or file on this computer."


class HubUnreachable(HubError):
    """No answer, or a broken one."""

    code = "hub_unreachable"
    what = "The Hugging Face hub could not be reached for {name}: {cause}."
    remedy = "Check the connection and start again; what has arrived is kept."


class HubRefused(HubError):
    """The model is gated, or the access token is not accepted."""

    code = "hub_refused"
    what = "The Hugging Face hub denies you access to {name}."
    remedy = "Accept the license on https://huggingface.co/{repository} and set HF_TOKEN to your access token."

    def __init__(self, name: str) -> None:
        super().__init__(name=name, repository="/".join(name.split("/")[:2]))


class NotOnTheHub(HubError):
    """Nothing of that name, or private."""

    code = "not_on_the_hub"
    what = "No model {name} on the Hugging Face hub, and nothing of that path on this computer."
    remedy = "Check the spelling (owner/name); for a private model set HF_TOKEN to your access token."


class NoModelInRepository(HubError):
    """The repository holds no base model in a form that can be read."""

    code = "no_model_in_repository"
    what = "{name} holds no Stable Diffusion model as .safetensors."
    remedy = "Choose a repository with model_index.json and .safetensors weights, or with one .safetensors file."


class NoRoom(HubError):
    """The model does not fit on the disk."""

    code = "no_room"
    what = "{name} needs {missing} more, but {folder} has {free} free."
    remedy = "Free some space, or set HF_HUB_CACHE to a folder on a larger disk."

    def __init__(self, name: str, missing: int, folder: Path) -> None:
        free = shutil.disk_usage(folder).free
        super().__init__(name=name, missing=size(missing), folder=folder, free=size(free))


class DamagedDownload(HubError):
    """A downloaded file does not match its checksum."""

    code = "damaged_download"
    what = "{file} of {name} arrived damaged and was deleted."
    remedy = "Start again; if it happens again, a proxy or firewall on the way changes the data."


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what the hub's client raises for a model into errors the user can act on."""
    import httpx2
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.OfflineModeIsEnabled as error:
        raise HubOffline(name=name, cache=constants.HF_HUB_CACHE) from error
    except errors.GatedRepoError as error:
        raise HubRefused(name) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise NotOnTheHub(name=name) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise HubRefused(name) from error
        if status == 404:
            raise NotOnTheHub(name=name) from error
        raise HubUnreachable(name=name, cause=f"it answered {status}") from error
    except (httpx2.HTTPError, errors.FileMetadataError) as error:
        raise HubUnreachable(name=name, cause=str(error) or type(error).__name__) from error
