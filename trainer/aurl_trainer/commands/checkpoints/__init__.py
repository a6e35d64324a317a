"""`aurl checkpoints`: what people do with checkpoints. Importing this loads neither torch nor a store."""

from aurl_trainer.commands.checkpoints.app import app

__all__ = ["app"]
