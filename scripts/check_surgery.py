"""The work of scripts/check-surgery; see there."""
import glob
import os
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

TEXT = "The lambda is mingling <|im_end|> quagmire"


def model(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def main():
    dir, models = sys.argv[1:3]
    failed, checks = [], 0

    def check(what, ok):
        nonlocal checks
        checks += 1
        if not ok:
            failed.append(what)

    donor = AutoTokenizer.from_pretrained(f"{models}/vocabC")
    for path in sorted(glob.glob(f"{dir}/token-*")):
        name = os.path.basename(path)
        m, t = model(path), AutoTokenizer.from_pretrained(path)
        ids = t.encode(TEXT)
        check(f"{name}: ids", ids == donor.encode(TEXT))
        out = m(torch.tensor([ids])).logits
        check(f"{name}: logits", out.shape[-1] == len(donor) == m.config.vocab_size and bool(torch.isfinite(out).all()))
        check(f"{name}: generates", m.generate(torch.tensor([ids]), max_new_tokens=4, do_sample=False).shape[1] > len(ids))
    ids = torch.arange(3, 43)[None]
    for name, base, ft in (("lora", "base", "ft1"), ("lora-embed", "base", "ft1"), ("lora-tied", "gpt2", "gpt2-ft1")):
        tuned, adapted = model(f"{models}/{ft}")(ids).logits, PeftModel.from_pretrained(model(f"{models}/{base}"), f"{dir}/{name}")(ids).logits
        check(f"{name}: logits off by {(tuned - adapted).abs().max():.2g}", torch.allclose(tuned, adapted, atol=1e-5))
    check("shuffled: layers", len(model(f"{dir}/shuffled").model.layers) == 10)
    check("filled: logits", torch.equal(model(f"{dir}/filled")(ids).logits, model(f"{models}/ft2")(ids).logits))
    print(f"{checks} checks, {len(failed)} failed")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
