"""The name users import: ``from pressroom import Client``."""

from app.client.client import Client
from app.client.errors import ClientError, ConnectionFailed, JobUnsuccessful, Problem, WaitTimeout

__all__ = ["Client", "ClientError", "ConnectionFailed", "JobUnsuccessful", "Problem", "WaitTimeout"]
