"""Turns corpora into shards: the `megapt-prep` command, and the shard format that megapt reads.

The package needs only numpy, pydantic and SentencePiece. Corpora can be prepared on machines that
have neither torch nor a GPU.
"""
