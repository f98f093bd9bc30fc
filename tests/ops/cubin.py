"""Reads what a cubin says of its kernels: registers and bytes of stack, where spills go too."""

import struct

REGISTERS, STACK = 0x2F, 0x11  # EIATTR_REGCOUNT, EIATTR_FRAME_SIZE
SIZED = 4  # EIFMT_SVAL: the value follows its length; other formats hold it in the last two bytes


def resources(cubin: bytes) -> dict[str, dict[str, int]]:
    """Return registers and stack bytes of every kernel, from the ELF section ``.nv.info``."""
    sections = _sections(cubin)
    names = _symbols(sections)
    info, at, found = sections[".nv.info"], 0, {}
    while at < len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form != SIZED:
            continue
        if attribute in {REGISTERS, STACK}:
            symbol, value = struct.unpack_from("<II", info, at)
            key = "registers" if attribute == REGISTERS else "stack"
            found.setdefault(names[symbol], {})[key] = value
        at += size
    return found


def _sections(elf: bytes) -> dict[str, bytes]:
    assert elf[:5] == b"\x7fELF\x02"
    offset, size, count, names = (
        *struct.unpack_from("<Q", elf, 40),
        *struct.unpack_from("<HHH", elf, 58),
    )
    headers = [struct.unpack_from("<IIQQQQ", elf, offset + i * size) for i in range(count)]
    text = elf[headers[names][4] :]
    return {_string(text, h[0]): elf[h[4] : h[4] + h[5]] for h in headers}


def _symbols(sections: dict[str, bytes]) -> list[str]:
    table, text = sections[".symtab"], sections[".strtab"]
    return [
        _string(text, struct.unpack_from("<I", table, at)[0]) for at in range(0, len(table), 24)
    ]


def _string(text: bytes, at: int) -> str:
    return text[at : text.index(b"\0", at)].decode()
