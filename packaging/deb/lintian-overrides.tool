# One binary for Debian 12 and 13. Go links its libraries statically, and a static
# binary also runs in a bare root. The copyright file and the bill of materials
# name what is in it.
statically-linked-binary *
