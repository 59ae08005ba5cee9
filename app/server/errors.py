"""What hinders the page's server, as errors to act on."""

from __future__ import annotations

from trainer.contract.errors import InvalidSettings, TrainerError


class PortTaken(TrainerError):
    """Another program answers at the port."""

    code = "port_in_use"

    def __init__(self, asked: str) -> None:
        super().__init__(f"{asked} in use.", hint="Close what uses it, or choose another: --port 8000.")


class PortRefused(TrainerError):
    """No port, or one that the system keeps for itself."""

    code = "port_refused"

    def __init__(self, port: int) -> None:
        super().__init__(
            f"The system does not give this program port {port}.", hint="Choose one from 1024 to 65535: --port 8000."
        )


class AddressElsewhere(TrainerError):
    """An address to listen at that is not this computer's."""

    code = "address_elsewhere"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"--listen {host} is no address of this computer.",
            hint="Give one of its own (ip addr, or ipconfig on Windows, lists them), or 0.0.0.0 for all.",
        )


class PasswordMissing(InvalidSettings):
    """The page is to be open to other computers without a password."""

    code = "password_missing"

    def __init__(self, host: str, user: str) -> None:
        super().__init__(
            f"--listen {host} opens the page to other computers, but there is no password.",
            hint=f"Set the variable ATELIER_PASSWORD, or give --password-file FILE; the user name is {user}.",
        )
