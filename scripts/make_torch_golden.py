"""Writes testdata/golden/torch: files of torch.save with what is in them, and files that try to do harm when they are read.

    python scripts/make_torch_golden.py testdata/golden/torch

Made by torch 2.15. expected.safetensors and legacy.safetensors hold the tensors of good.bin and legacy.bin as torch loads them. evil/ has
files that torch.load with weights_only=False would run or choke on; evil.json says for each what the refusal must name. The files do no
more than create the file mergekit-was-here in the working directory."""

import codecs
import collections
import io
import json
import os
import pickle
import shutil
import struct
import sys
import warnings
import zipfile

import torch
from safetensors.torch import save_file

warnings.filterwarnings("ignore")
out = sys.argv[1]
os.makedirs(out + "/evil", exist_ok=True)
torch.manual_seed(1)


def tensors():
    whole = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4) / 8
    square = torch.randn(5, 7)
    tied = torch.randn(4, 3)
    d = collections.OrderedDict()
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64):
        d[str(dtype)] = torch.randn(3, 2).to(dtype)
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool):
        d[str(dtype)] = torch.randint(0, 100, (5,)).to(dtype)
    d["shared.whole"] = whole
    d["shared.rows"] = whole[1:]
    d["shared.columns"] = whole[:, 1:, 1:3]
    d["shared.steps"] = whole.view(-1)[::5]
    d["transposed"] = square.t()
    d["permuted"] = whole.permute(2, 0, 1)
    d["permuted.half"] = whole.half().permute(1, 2, 0)
    d["embed"], d["head"] = tied, tied
    d["parameter"] = torch.nn.Parameter(torch.randn(2, 2))
    d["positions"] = torch.arange(6).expand((1, -1))
    d["scalar"] = torch.tensor(2.5)
    d["empty"] = torch.zeros(0, 3)
    return d


def contiguous(d):
    return {k: v.detach().clone().contiguous() for k, v in d.items()}


new = tensors()
for dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.uint16, torch.uint32, torch.uint64):
    new[str(dtype)] = torch.arange(6).to(dtype)
new["untyped.columns"] = torch.arange(12).to(torch.uint16).reshape(3, 4)[:, 1:3]
new._metadata = {"": {"version": 1}}
torch.save(new, out + "/good.bin")
save_file(contiguous(new), out + "/expected.safetensors")
old = tensors()
torch.save(old, out + "/legacy.bin", _use_new_zipfile_serialization=False)
save_file(contiguous(old), out + "/legacy.safetensors")

# What a training program keeps: the state dict beside an optimizer's, whose keys are numbers.
linear = torch.nn.Linear(3, 2)
optimizer = torch.optim.AdamW(linear.parameters())
linear(torch.ones(1, 3)).sum().backward()
optimizer.step()
torch.save({"epoch": 3, "state_dict": linear.state_dict(), "optimizer": optimizer.state_dict(), "device": torch.device("cpu"), "dtype": torch.float32,
            "shape": torch.Size([2, 3]), "best": None}, out + "/training.pt")
save_file(contiguous(linear.state_dict()), out + "/training.safetensors")

torch.save([torch.ones(2)], out + "/list.pt")
torch.save({"epoch": 1, "loss": 0.5}, out + "/notensors.pt")
torch.jit.save(torch.jit.script(torch.nn.Identity()), out + "/script.pt")

# A whole model in two shards, as transformers once saved it: models/ft2-bf16.
from safetensors.torch import load_file

model = load_file(out + "/../models/ft2-bf16/model.safetensors")
os.makedirs(out + "/ft2-bf16", exist_ok=True)
names = sorted(model)
halves = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
for file, half in halves.items():
    torch.save({k: model[k] for k in half}, f"{out}/ft2-bf16/{file}")
index = {"metadata": {"total_size": sum(t.numel() * t.element_size() for t in model.values())}, "weight_map": {k: file for file, half in halves.items() for k in half}}
with open(out + "/ft2-bf16/pytorch_model.bin.index.json", "w") as f:
    json.dump(index, f, indent=2)
    f.write("\n")
for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
    if os.path.exists(f"{out}/../models/ft2-bf16/{file}"):
        shutil.copyfile(f"{out}/../models/ft2-bf16/{file}", f"{out}/ft2-bf16/{file}")

expect = {}
here = "mergekit-was-here"


def archive(name, program, refusal, entries=(), compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(f"{out}/evil/{name}.bin", "w", compression) as z:
        z.writestr(zipfile.ZipInfo("x/data.pkl"), program, compression)
        for entry, data in entries:
            z.writestr(zipfile.ZipInfo(entry), data, compression)
    expect[name + ".bin"] = refusal


def raw(name, data, refusal):
    with open(f"{out}/evil/{name}.bin", "wb") as f:
        f.write(data)
    expect[name + ".bin"] = refusal


class Call:
    def __init__(self, f, *args):
        self.f, self.args = f, args

    def __reduce__(self):
        return self.f, self.args


def dumps(x, protocol=2):
    return pickle.dumps(x, protocol=protocol)


import builtins
import importlib
import operator
import runpy
import subprocess

system = Call(os.system, "touch " + here)
archive("os-system", dumps({"w": system}), '"posix.system"')
archive("os-system-protocol-4", dumps({"w": system}, 4), '"posix.system"')
archive("eval", dumps(Call(builtins.eval, f"open('{here}','w')")), '"__builtin__.eval"')
archive("eval-protocol-5", dumps(Call(builtins.eval, f"open('{here}','w')"), 5), '"builtins.eval"')
archive("exec", dumps(Call(builtins.exec, f"open('{here}','w')"), 4), '"builtins.exec"')
archive("open", dumps(Call(open, here, "w"), 4), '"io.open"')
archive("import", dumps(Call(builtins.__import__, "os"), 4), '"builtins.__import__"')
archive("importlib", dumps(Call(importlib.import_module, "os"), 4), '"importlib.import_module"')
archive("popen", dumps(Call(subprocess.Popen, ["touch", here]), 4), '"subprocess.Popen"')
archive("runpy", dumps(Call(runpy.run_path, here), 4), '"runpy.run_path"')
archive("rmtree", dumps(Call(shutil.rmtree, here), 4), '"shutil.rmtree"')
archive("getattr", dumps(Call(builtins.getattr, "x", "join"), 4), '"builtins.getattr"')
archive("attrgetter", dumps(operator.attrgetter("system"), 4), '"operator.attrgetter"')
archive("nested-reduce", dumps({"a": [(1, {"b": Call(tuple, [system])})]}), '"__builtin__.tuple"')
archive("torch-load", dumps(Call(torch.load, here), 4), '"torch.serialization.load"')
archive("torch-hub", b"\x80\x02ctorch.hub\nload\nX\x01\x00\x00\x00x\x85R.", '"torch.hub.load"')
archive("numpy-object-array", b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n.", '"numpy.core.multiarray._reconstruct"')
archive("defaultdict", dumps(collections.defaultdict(os.getcwd)), '"collections.defaultdict"')
archive("codecs-decode", dumps(Call(codecs.decode, "x", "rot13")), '"_codecs.decode"')
archive("hidden-in-unused", b"\x80\x02cposix\nsystem\n0}.", '"posix.system"')
archive("global-with-dots", b"\x80\x04\x8c\x05torch\x8c\x10_utils.os.system\x93.", '"torch._utils.os.system"')
archive("global-confusable", b"\x80\x04\x8c\x06t\xd0\xberch\x8c\x04Size\x93.", r'"t\u043erch.Size"')
archive("global-newline", b"\x80\x04\x8c\x0atorch\nSize\x8c\x01x\x93.", r'"torch\nSize.x"')
archive("global-of-numbers", b"\x80\x04K\x01K\x02\x93.", "names something by values")
archive("inst", b"(S'touch mergekit-was-here'\nios\nsystem\n.", "instruction 0x53")
archive("inst-marked", b"(X\x01\x00\x00\x00xiposix\nsystem\n.", "instruction INST")
archive("obj", b"(ctorch\nSize\no.", "instruction OBJ")
archive("newobj", b"\x80\x02ctorch\nSize\n)\x81.", "instruction NEWOBJ")
archive("newobj-ex", b"\x80\x04\x8c\x05torch\x8c\x04Size\x93)}\x92.", "instruction NEWOBJ_EX")
archive("extension", b"\x80\x02\x82\x01.", "instruction EXT1")
archive("persid", b"\x80\x02Pos.system\n.", "instruction PERSID")
archive("persistent-of-call", b"\x80\x02cposix\nsystem\nQ.", '"posix.system"')
archive("persistent-of-text", b"\x80\x02X\x04\x00\x00\x00evalQ.", "is no storage")
archive("persistent-unknown-kind", b"\x80\x02(X\x07\x00\x00\x00storagectorch\nSize\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.", "in an unknown way")
archive("call-of-dtype", b"\x80\x02ctorch\nfloat32\n)R.", "torch.float32, which is no function")
archive("call-of-text", b"\x80\x02X\x02\x00\x00\x00os)R.", "calls something that is no name")
archive("fill-of-number", b"\x80\x02K\x01K\x02a.", "fills something")
archive("build-on-list", b"\x80\x02]}b.", "sets attributes of something that has none")
archive("build-on-tensor-class", b"\x80\x02ctorch\nTensor\n}X\x09\x00\x00\x00__class__cposix\nsystem\nsb.", '"posix.system"')
archive("from-type-of-call", b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nctorch\nTensor\n)}tR.", "arguments that it does not take")

# Piles and counts.
archive("stack-underflow", b"\x80\x020.", "empty stack")
archive("stack-underflow-reduce", b"\x80\x02R.", "empty stack")
archive("stack-underflow-tuple", b"\x80\x02K\x01\x87.", "empty stack")
archive("no-mark", b"\x80\x02K\x01t.", "no mark")
archive("mark-for-value", b"\x80\x02]((e.", "takes a mark")
archive("stop-on-mark", b"\x80\x02(.", "takes a mark")
archive("huge-text", b"\x80\x02X\xff\xff\xff\xff.", "promises 4294967295 bytes")
archive("huge-bytes", b"\x80\x04\x8e" + b"\xff" * 8 + b".", "promises 18446744073709551615 bytes")
archive("huge-frame", b"\x80\x04\x95" + b"\xff" * 8, "ends at byte")
archive("huge-number", b"\x80\x02\x8b\x00\x00\x00\x40" + b".", "promises 1073741824 bytes")
archive("memo-unset", b"\x80\x02j\xff\xff\xff\xff.", "before it is stored")
archive("memo-far", b"\x80\x02Nr\xff\xff\xff\xff0j\xfe\xff\xff\xff.", "before it is stored")
laughs = b"\x80\x02N\x85q\x00"
for i in range(200):
    laughs += b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1])
archive("billion-laughs-key", laughs + b"0}h\xc8Ns.", "dictionary without tensors")
archive("billion-laughs-root", laughs + b".", "holds a tuple")
lists = b"\x80\x02]q\x00"
for i in range(200):
    lists += b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1])
archive("billion-lists", lists + b".", "holds a list")
archive("list-in-itself", b"\x80\x02]q\x00h\x00a.", "holds a list")
archive("dict-in-itself", b"\x80\x02}q\x00X\x0a\x00\x00\x00state_dicth\x00s.", "without tensors")
text = b"X\x00\x40\x00\x00" + b"a" * 16384 + b"q\x01"
call = b"c_codecs\nencode\nq\x00" + text + b"0X\x06\x00\x00\x00latin1q\x020"
archive("encode-again-and-again", b"\x80\x02" + call + b"h\x00h\x01h\x02\x86R" * 5000 + b".", "makes more than")
pairs = b"](" + b"K\x01K\x02\x86" * 4000 + b"eq\x01"
archive("dictionaries-again-and-again", b"\x80\x02ccollections\nOrderedDict\nq\x00" + pairs + b"h\x00h\x01\x85R" * 1000 + b".", "again and again")

# Tensors and storages.


def tensor(size, stride, offset=b"K\x00", count=b"K\x02", key=b"0"):
    return (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX" + struct.pack("<I", len(key)) + key +
            b"X\x03\x00\x00\x00cpu" + count + b"tQ" + offset + size + stride + b"\x89NtR.")


eight = ("x/data/0", b"12345678")
big = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f"
archive("huge-storage", tensor(b"K\x02\x85", b"K\x01\x85", count=big), "is to have 9223372036854775807 elements", [eight])
archive("huge-shape", tensor(big + b"\x85", b"K\x01\x85"), "more elements than its storage", [eight])
archive("huge-product", tensor((b"J\xff\xff\xff\x7f" * 3) + b"\x87", b"K\x00K\x00K\x00\x87"), "impossible shape", [eight])
archive("stride-zero-bomb", tensor(b"J\xff\xff\xff\x7f\x85", b"K\x00\x85"), "more elements than its storage", [eight])
archive("huge-offset", tensor(b"K\x01\x85", b"K\x01\x85", offset=big), "outside of its storage", [eight])
archive("negative-offset", tensor(b"K\x01\x85", b"K\x01\x85", offset=b"J\xff\xff\xff\xff"), "impossible shape", [eight])
archive("negative-stride", tensor(b"K\x02\x85", b"J\xff\xff\xff\xff\x85"), "impossible strides", [eight])
archive("negative-size", tensor(b"J\xff\xff\xff\xff\x85", b"K\x01\x85"), "size -1", [eight])
archive("huge-stride", tensor(b"K\x02\x85", big + b"\x85"), "impossible strides", [eight])
archive("ranks", tensor(b"(" + b"K\x01" * 3000 + b"t", b"(" + b"K\x01" * 3000 + b"t"), "impossible shape", [eight])
archive("path-escape", tensor(b"K\x02\x85", b"K\x01\x85", key=b"../../../../etc/passwd"), 'no storage "../../../../etc/passwd"', [("x/../../" + here, b"12345678")])
archive("path-absolute", tensor(b"K\x02\x85", b"K\x01\x85", key=b"/etc/passwd"), 'no storage "/etc/passwd"', [("/" + here, b"12345678")])
archive("zip-bomb", dumps({"w": "a" * 5_000_000}), "compressed", compression=zipfile.ZIP_DEFLATED)
archive("zip-bomb-storage", tensor(b"K\x02\x85", b"K\x01\x85"), "is to have", [])
with zipfile.ZipFile(out + "/evil/zip-bomb-storage.bin", "w") as z:
    z.writestr(zipfile.ZipInfo("x/data.pkl"), tensor(b"J\x00\x00\x10\x00\x85", b"K\x01\x85", count=b"J\x00\x00\x10\x00"))
    z.writestr(zipfile.ZipInfo("x/data/0"), b"\0" * (4 << 20), zipfile.ZIP_DEFLATED)
expect["zip-bomb-storage.bin"] = "compressed"
archive("two-programs", b"N.", "two objects", [("y/data.pkl", dumps(system))])
archive("program-twice", b"N.", "twice", [("x/data.pkl", dumps(system))])
archive("other-byte-order", b"N.", "another byte order", [("x/byteorder", b"big")])
whole = open(out + "/good.bin", "rb").read()
raw("truncated", whole[: len(whole) // 2], "damaged zip archive")
wrong = bytearray(open(f"{out}/evil/huge-shape.bin", "rb").read())
at = wrong.rfind(b"PK\x01\x02")  # the directory's entry of the storage: its sizes become what the file does not have
wrong[at + 20: at + 28] = struct.pack("<II", 0x7FFFFFFF, 0x7FFFFFFF)
raw("entry-beyond-the-file", bytes(wrong), "outside of the file")

# The old format, and pickles that torch.save never wrote.
magic = dumps(0x1950A86A20F9469CFC6C) + dumps(1001)
facts = dumps({"protocol_version": 1001, "little_endian": True})
raw("legacy-facts", magic + dumps({"little_endian": system}), '"posix.system"')
raw("legacy-object", magic + facts + dumps({"w": system}), '"posix.system"')
raw("legacy-keys", magic + facts + dumps({}) + dumps([system]), '"posix.system"')
one = tensor(b"K\x02\x85", b"K\x01\x85")
raw("legacy-version", dumps(0x1950A86A20F9469CFC6C) + dumps(9999), "unknown version")
raw("legacy-big-endian", magic + dumps({"little_endian": False}), "another byte order")
raw("legacy-no-storages", magic + facts + one + dumps([]), "its tensors need 1")
raw("legacy-unknown-storage", magic + facts + one + dumps(["0", "1"]) + struct.pack("<q", 2) + b"12345678", "no tensor has")
raw("legacy-twice", magic + facts + one + dumps(["0", "0"]) + (struct.pack("<q", 2) + b"12345678") * 2, "one twice")
raw("legacy-huge-count", magic + facts + tensor(b"K\x02\x85", b"K\x01\x85", count=big) + dumps(["0"]) + struct.pack("<q", 2**63 - 1) + b"12345678", "in what is left")
raw("legacy-other-count", magic + facts + one + dumps(["0"]) + struct.pack("<q", 1) + b"1234", "and has 1 in what is left")
raw("legacy-short", magic + facts + one + dumps(["0"]) + struct.pack("<q", 2) + b"123456", "in what is left")
raw("legacy-window", magic + facts + b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02X\x01\x00\x00\x000K\x00K\x01\x87tQ.", "windows on others")
raw("bare-system", dumps(system), '"posix.system"')
raw("bare-protocol-5", dumps({"w": system}, 5), '"posix.system"')
raw("bare-plain", dumps({"w": 1}), "torch.save did not write")
raw("text-protocol", pickle.dumps(system, protocol=0), "no file of torch.save")
raw("tar", b"\0" * 257 + b"ustar" + b"\0" * 250, "tar archive")
raw("nothing", b"", "no file of torch.save")

with open(out + "/evil/evil.json", "w") as f:
    json.dump(expect, f, indent=1, sort_keys=True)
    f.write("\n")
print(len(expect), "evil files")
