"""Writes the vector files of the crypto tests from the published ones in `cryptography_vectors`.

    python tests/vectors/generate_crypto.py            write tests/vectors/{aes_gcm,...}.json
    python tests/vectors/generate_crypto.py --check    exit 1 if they are not what it would write

The choice is deterministic: the files stay small enough for a board's test run, and
tests/vectors/test_crypto_full.py runs every case of the sources on the host.
"""

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import cryptography_vectors

SOURCES = Path(cryptography_vectors.__file__).parent
TARGET = Path(__file__).parent

CAVP = "NIST CAVP, GCM test vectors (gcmtestvectors), %s; 96-bit IV, 128-bit tag"
EVERY = 5  # of the 15 cases of each pair of text and AAD lengths


def cavp(name: str) -> Iterator[dict[str, str]]:
    """The cases of a CAVP file with 96-bit IVs and 128-bit tags; FAIL ones have the key `FAIL`."""
    header: dict[str, str] = {}
    case: dict[str, str] = {}
    wanted = {"IVlen": "96", "Taglen": "128"}
    text = (SOURCES / "ciphers/AES/GCM" / name).read_text()
    for line in [*text.splitlines(), "Count = end"]:
        if match := re.fullmatch(r"\[(\w+) = (\d+)\]", line.strip()):
            header[match[1]] = match[2]
        elif line.startswith("Count"):
            if case and all(case[field] == value for field, value in wanted.items()):
                yield case
            case = {**header, "Count": line.split("=")[1].strip()}
            if case["Count"] == "end":
                return
        elif line.strip() == "FAIL":
            case["FAIL"] = ""
        elif "=" in line:
            field, value = line.split("=")
            case[field.strip()] = value.strip()


def aes_gcm() -> dict[str, object]:
    """NIST CAVP: some cases of each pair of lengths, and more of those to be refused."""
    files: dict[str, object] = {}
    for bits in (128, 256):
        for kind in ("EncryptExtIV", "Decrypt"):
            name = f"gcm{kind}{bits}.rsp"
            cases = []
            for case in cavp(name):
                if int(case["Count"]) % EVERY == 0 or ("FAIL" in case and int(case["Count"]) % 2):
                    fields = [case[field] for field in ("Key", "IV", "AAD", "CT", "Tag")]
                    cases.append([*fields, None if "FAIL" in case else case["PT"]])
            files[name] = {
                "source": CAVP % name,
                "fields": [
                    "key",
                    "iv",
                    "aad",
                    "ciphertext",
                    "tag",
                    "plaintext, null: must be refused",
                ],
                "cases": cases,
            }
    return {"source": CAVP % "a selection", "files": files}


def blocks(path: str) -> Iterator[dict[str, str]]:
    """The `NAME = value` groups of a file, parted by COUNT lines."""
    case: dict[str, str] = {}
    for line in (SOURCES / path).read_text().splitlines():
        if line.startswith("COUNT") and case:
            yield case
            case = {}
        if "=" in line and not line.startswith("#"):
            field, value = line.split("=")
            case[field.strip()] = value.strip()
    yield case


def hkdf() -> dict[str, object]:
    """RFC 5869, A.1 to A.3."""
    cases = [
        {
            "ikm": case["IKM"],
            "salt": case["salt"],
            "info": case["info"],
            "length": int(case["L"]),
            "prk": case["PRK"],
            "okm": case["OKM"],
        }
        for case in blocks("KDF/rfc-5869-HKDF-SHA256.txt")
    ]
    return {"source": "RFC 5869, appendix A.1 to A.3 (SHA-256)", "cases": cases}


def x25519() -> dict[str, object]:
    """RFC 7748, 5.2 and 6.1."""
    cases = [
        {"scalar": case["INPUT_SCALAR"], "u": case["INPUT_U"], "result": case["OUTPUT_U"]}
        for case in blocks("asymmetric/X25519/rfc7748.txt")
    ]
    return {
        "source": "RFC 7748, 5.2; iterated and Diffie-Hellman from 5.2 and 6.1",
        "cases": cases,
        "iterated": {
            "1": "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079",
            "1000": "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51",
        },
        "diffie_hellman": {
            "alice_private": "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "alice_public": "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
            "bob_private": "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
            "bob_public": "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
            "shared": "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
        },
    }


def hpke() -> dict[str, object]:
    """RFC 9180, the X25519 suites with HKDF-SHA256 and AES-GCM, all modes."""
    kept = (
        "mode", "aead_id", "info", "ikmE", "ikmR", "ikmS", "skRm", "skSm", "skEm", "psk", "psk_id",
        "pkRm", "pkSm", "enc", "exports",
    )  # fmt: skip
    cases = []
    for case in json.loads((SOURCES / "HPKE/test-vectors.json").read_text()):
        if (case["kem_id"], case["kdf_id"]) != (0x0020, 0x0001) or case["aead_id"] not in (1, 2):
            continue
        chosen = {field: case[field] for field in kept if field in case}
        # The RFC prints these; in between a test seals what nobody published.
        chosen["encryptions"] = {
            str(sequence): {field: case["encryptions"][sequence][field] for field in ("aad", "pt", "ct")}
            for sequence in (0, 1, 2, 4, 255, 256)
        }
        cases.append(chosen)
    return {
        "source": "RFC 9180, appendix A: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-128/256-GCM",
        "cases": cases,
    }


MADE = {"aes_gcm": aes_gcm, "hkdf": hkdf, "x25519": x25519, "hpke": hpke}


def text(value: dict[str, object]) -> str:
    """JSON with one case a line, so that a change shows as the cases it changes."""
    flat = json.dumps(value, indent=None, separators=(",", ":"))
    return re.sub(r'(?<=[\]}],)(?=[\[{])|(?<="cases":\[)', "\n", flat) + "\n"


def main() -> int:
    """Write or check the files; the exit code says whether they were right."""
    wrong = 0
    for name, make in MADE.items():
        path = TARGET / (name + ".json")
        wanted = text(make())
        if "--check" in sys.argv[1:]:
            if not path.exists() or path.read_text() != wanted:
                print(f"{path} is not what {Path(__file__).name} writes: run it without --check")
                wrong = 1
        else:
            path.write_text(wanted)
            print(f"{path}: {len(wanted)} bytes, cryptography_vectors {version('cryptography-vectors')}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
