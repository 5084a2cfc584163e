"""An OIDC issuer of tests: a key pair, its JSON Web Key Set, and tokens, by RS256 in plain Python."""

import base64
import hashlib
import hmac
import json
import math
import secrets

# RFC 8017, section 9.2: what stands before a SHA-256 that is signed.
PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def number(n: int) -> str:
    return encode(n.to_bytes((n.bit_length() + 7) // 8, "big"))


SMALL = math.prod(n for n in range(3, 4000, 2) if all(n % d for d in range(3, math.isqrt(n) + 1, 2)))


def prime(bits: int) -> int:
    while True:
        n = secrets.randbits(bits) | 3 << bits - 2 | 1
        if math.gcd(n, SMALL) == math.gcd(n - 1, 65537) == 1 and all(pow(a, n - 1, n) == 1 for a in (2, 3, 5)):
            return n


class Issuer:
    """`kid` names its key; two with one name have different keys."""

    def __init__(self, kid: str, iss: str = "https://id.example", aud: str = "witan"):
        p, q = prime(1024), prime(1024)
        self.kid, self.iss, self.aud = kid, iss, aud
        self.n, self.d = p * q, pow(65537, -1, (p - 1) * (q - 1))

    def jwks(self) -> str:
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.kid, "n": number(self.n),
               "e": "AQAB"}
        return json.dumps({"keys": [key]})

    def sign(self, data: bytes) -> bytes:
        size = (self.n.bit_length() + 7) // 8
        digest = PREFIX + hashlib.sha256(data).digest()
        padded = b"\0\1" + b"\xff" * (size - 3 - len(digest)) + b"\0" + digest
        return pow(int.from_bytes(padded, "big"), self.d, self.n).to_bytes(size, "big")

    def token(self, claims: dict, **header) -> str:
        head = {"alg": "RS256", "typ": "JWT", "kid": self.kid, **header}
        said = ".".join(encode(json.dumps(part).encode()) for part in (head, claims)).encode()
        if head["alg"] == "none":
            signature = b""
        elif head["alg"] == "HS256":  # with what is public as the secret
            signature = hmac.digest(number(self.n).encode(), said, "sha256")
        else:
            signature = self.sign(said)
        return f"{said.decode()}.{encode(signature)}"
