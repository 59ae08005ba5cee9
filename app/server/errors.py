"""Why the page's server cannot start."""

from trainer.contract.errors import InvalidSettings, TrainerError
from trainer.contract.wording import action


class PortTaken(TrainerError):
    """The port is used by another program."""

    code = "port_in_use"
    what = "{asked} in use."
    remedy = f"Close what uses it, or choose {action('port')}."


class PortRefused(TrainerError):
    """The port does not exist, or is reserved by the system."""

    code = "port_refused"
    what = "Port {port} is not available."
    remedy = f"Choose {action('port')}, from 1024 to 65535."


class AddressElsewhere(TrainerError):
    """The address to listen on is not this computer's."""

    code = "address_elsewhere"
    what = f"{action('listen', '{host}')} is not an address of this computer."
    remedy = "Give one of its own (ip addr, or ipconfig on Windows, lists them), or 0.0.0.0 for all."


class PasswordMissing(InvalidSettings):
    """The page would be open to other computers without a password."""

    code = "password_missing"
    what = f"{action('listen', '{host}')} opens the page to other computers, but there is no password."
    remedy = f"Set the variable ATELIER_PASSWORD, or give {action('password')}; the user name is {{user}}."
