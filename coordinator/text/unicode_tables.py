#!/usr/bin/env python3
"""Writes unicode_tables.c: python3 unicode_tables.py DerivedAge.txt > unicode_tables.c

Needs the package unicodedata2 in version 16.0 and the Unicode Character Database's DerivedAge.txt
(any version from 9.0 on). The flags' meaning is in unicode.h.
"""
import sys

import unicodedata2 as ud

NFC_CHECK, NFC_NEW, LETTER, NUMBER, OTHER = 1, 2, 4, 8, 16
SURROGATES = range(0xD800, 0xE000)


def assigned_in_9(path):
    chars = set()
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            line = line.split("#")[0].strip()
            if not line:
                continue
            points, age = (part.strip() for part in line.split(";"))
            first, _, last = points.partition("..")
            if tuple(map(int, age.split("."))) <= (9, 0):
                chars.update(range(int(first, 16), int(last or first, 16) + 1))
    return chars


def second_of_composition(old):
    """Characters that may compose with the one before: NFC_Quick_Check=Maybe."""
    seconds = set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))
    for c in old:
        parts = ud.decomposition(chr(c)).split()
        if len(parts) == 2 and parts[0][0] != "<" and ud.normalize("NFC", chr(c)) == chr(c):
            seconds.add(int(parts[1], 16))
    return seconds


def flags_of(c, old, seconds):
    char = chr(c)
    category = ud.category(char)
    if c == 0x180E:
        return OTHER  # PCRE2 counts it as white space, Unicode no longer does
    if c in old:
        check = ud.combining(char) or c in seconds or ud.normalize("NFC", char) != char
        return NFC_CHECK if check else 0
    if category[0] == "L":
        return NFC_NEW | LETTER
    if category[0] == "N":
        return NFC_NEW | NUMBER
    return NFC_NEW | OTHER if category == "Cn" else NFC_NEW


def main():
    assert ud.unidata_version == "16.0.0", ud.unidata_version
    old = assigned_in_9(sys.argv[1]) - set(SURROGATES)
    seconds = second_of_composition(old)
    ranges = []
    for c in range(0x80, 0x110000):
        flags = 0 if c in SURROGATES else flags_of(c, old, seconds)
        if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == flags:
            ranges[-1][1] = c
        elif flags:
            ranges.append([c, c, flags])
    print("/* Made by unicode_tables.py from the Unicode Character Database; see unicode.h. */")
    print('#include "coordinator/text/unicode.h"\n')
    print("/* clang-format off */")
    print("const struct unicode_range unicode_ranges[] = {")
    cells = ["{0x%x, 0x%x, %d}," % tuple(r) for r in ranges]
    line = "   "
    for cell in cells:
        if len(line) + 1 + len(cell) > 98:
            print(line)
            line = "   "
        line += " " + cell
    print(line)
    print("};")
    print("const size_t unicode_range_count = sizeof unicode_ranges / sizeof unicode_ranges[0];")


main()
