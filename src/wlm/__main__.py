"""``python -m wlm`` is the command ``wlm``."""

from wlm.cli import app

if __name__ == "__main__":
    app(prog_name="wlm")
