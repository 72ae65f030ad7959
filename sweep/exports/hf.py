"""A model's folder as a repository of the Hugging Face hub, or of the one that $HF_ENDPOINT names. The token is the
client's own business: $HF_TOKEN, or what `hf auth login` kept."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi

from attacks.errors import InputError
from sweep.exports import TARGETS, Asked, Made, line
from sweep.exports.folder import fill
from sweep.exports.model import chosen


@TARGETS.register("hf")
def export(asked: Asked, where: str) -> Made:
    """Uploads in one commit; a repository that is not there is made, as a private one."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", where):
        raise InputError(f"expected --to hf:USER/REPO, got hf:{where}")
    model, hub = chosen(asked), HfApi()
    with TemporaryDirectory() as folder:
        fill(Path(folder), model)
        try:
            hub.create_repo(where, private=True, exist_ok=True)
            made = hub.upload_folder(
                repo_id=where, folder_path=folder, commit_message=f"adversarial-sweep: {model.name}"
            )
        except Exception as error:  # the client's, its transport's and the token's, in versions that differ
            raise InputError(
                f"cannot upload to {where} ({line(error)}): check the network, $HF_TOKEN and your rights there"
            ) from error
    return Made(str(made.commit_url), f"hf download {where} --local-dir {where.partition('/')[2]}")
