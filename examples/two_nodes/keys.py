"""What only the two nodes know: 32 random bytes, other ones for every pair of yours.

Make your own with:  python3 -c "import secrets; print(secrets.token_hex(32))"
"""

SECRET = bytes.fromhex("4f1d0a9be1d6c0a8f3f1d5c2b7a4964c1b2e63d9078f5ea4c36b0d1f2a87e590")
