"""Compare ids and assistant masks of conversations with transformers' apply_chat_template.

usage: check_masks.py PROGRAM MODEL WHEEL

PROGRAM is mergekit, MODEL a folder with tokenizer.json, WHEEL a package with templates that have generation blocks. Two differences are
meant: an empty reasoning block that the template writes and the message does not have is masked, and of two tokens that begin a text
one is dropped (a template for another tokenizer may write this one's). Ends with status 1 if anything else differs.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).parent))

import datetime

import check_chat
from transformers import AutoTokenizer

check_chat.DATE = datetime.datetime(2024, 7, 26)  # the date that preview gives templates


def without_empty_thinking(tokenizer, ids, mask, messages):
    """Clears the mask of <think></think> right after its start, where no message has one."""
    if any("<think>" in str(m.get("content")) for m in messages):
        return mask
    mask, text, starts = list(mask), "", []
    for i in ids:
        starts.append(len(text))
        text += tokenizer.decode([i])
    for k in range(len(ids)):
        if mask[k] and not (k and mask[k - 1]):
            rest = text[starts[k]:]
            body = rest.lstrip("\n").removeprefix("<think>")
            after = body.lstrip(" \n").removeprefix("</think>")
            if body != rest.lstrip("\n") and after != body.lstrip(" \n"):
                end = len(text) - len(after.lstrip(" \n"))
                for j in range(k, len(ids)):
                    if (starts[j + 1] if j + 1 < len(starts) else len(text)) <= end:
                        mask[j] = 0
    return mask


def main():
    program, model, wheel = sys.argv[1:4]
    tokenizer = AutoTokenizer.from_pretrained(model)
    with zipfile.ZipFile(wheel) as z:
        templates = {n.split("/")[-1]: z.read(n).decode() for n in sorted(z.namelist()) if n.endswith("_training.jinja")}
    compared = failures = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name, source in templates.items():
            (folder / name).write_text(source)
            rows, want = [], []
            for title, messages in check_chat.CONVERSATIONS.items():
                if title == "call_string" or not any(m["role"] == "assistant" for m in messages):
                    continue  # arguments that are JSON in a string are parsed here
                try:
                    out = tokenizer.apply_chat_template(messages, chat_template=source, return_dict=True, return_assistant_tokens_mask=True, tokenize=True)
                except Exception:  # refused: see TestRenders
                    continue
                ids, mask = list(out["input_ids"]), list(out["assistant_masks"])
                if len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos_token_id:
                    ids, mask = ids[1:], mask[1:]
                if any(mask[1:]):
                    rows.append(json.dumps({"messages": messages}))
                    want.append((title, ids, mask, messages))
            if not rows:
                continue
            (folder / "rows.jsonl").write_text("\n".join(rows))
            done = subprocess.run([program, "preview", model, str(folder / "rows.jsonl"), "--template", str(folder / name), "--json", "--rows", "1000"],
                                  capture_output=True, text=True)
            if done.returncode:
                failures += 1
                print(f"FAIL  {name}: {done.stdout[-300:]}{done.stderr[-300:]}")
                continue
            got = {r["line"]: r for r in map(json.loads, done.stdout.splitlines()) if r["event"] == "row"}
            for line, (title, ids, mask, messages) in enumerate(want, 1):
                parts = got[line]["parts"] if line in got else []
                mine = [i for p in parts for i in p["ids"]]
                learnt = [int(p["learnt"]) for p in parts for _ in p["ids"]]
                mask = without_empty_thinking(tokenizer, ids, mask, messages)
                mask[0] = 0  # the first token is never predicted
                compared += 1
                # Where one message of several has a reasoning block, the others' are left alone by the function above.
                if mine != ids or learnt != mask and not (any("<think>" in str(m.get("content")) for m in messages)
                                                          and all(a <= b for a, b in zip(learnt, mask))):
                    failures += 1
                    print(f"FAIL  {name}, {title}: {'ids' if mine != ids else 'mask'} differ")
    print(f"{compared} masks compared, {failures} differ")
    return 1 if failures or compared < 100 else 0


if __name__ == "__main__":
    sys.exit(main())
