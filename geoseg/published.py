"""The networks and their published weights as facts; without torch, which takes seconds."""

from dataclasses import dataclass

# Of the networks with two classes. A table, tested against the networks, since building them in
# order to count takes seconds of somebody who waits for a list.
PARAMETERS = {
    "segnext_t": 4_225_378,
    "segnext_s": 13_894_850,
    "segnext_b": 27_560_386,
    "segnext_l": 48_774_850,
    "segman_t": 6_378_168,
    "segman_s": 29_403_176,
    "segman_b": 51_776_032,
    "segman_l": 92_302_434,
}

OPENMMLAB = "https://download.openmmlab.com/mmsegmentation/v0.5"
ADE20K_RUN = "segnext_mscan-{}_1x16_512x512_adamw_160k_ade20k"


@dataclass(frozen=True)
class OfficialFile:
    """A published checkpoint.

    Attributes:
        network: that it holds.
        trained_on: ``ImageNet-1k`` for an encoder, else the data set of the segmentor.
        address: to download it from.
        miou: on the validation set, single scale, as its publisher states; None for an encoder.
        licence: of the repository that publishes it.
    """

    network: str
    trained_on: str
    address: str
    miou: float | None = None
    licence: str = "Apache-2.0 (open-mmlab/mmsegmentation)"


# SegMAN's files lie on cloud drives without lasting addresses: only the project's own page leads to
# them, and they are converted from disk.
# The publisher states no checksums. The ends of the names are no part of the files' SHA-256: for
# segnext_b others report 647a0cda... (so `make verify-official` prints sums, and compares none).
OFFICIAL_FILES = (
    *(
        OfficialFile(f"segnext_{size}", "ImageNet-1k", f"{OPENMMLAB}/pretrain/segnext/{name}.pth")
        for size, name in {
            "t": "mscan_t_20230227-119e8c9f",
            "s": "mscan_s_20230227-f33ccdf2",
            "b": "mscan_b_20230227-3ab7d230",
            "l": "mscan_l_20230227-cef260d4",
        }.items()
    ),
    *(
        OfficialFile(
            f"segnext_{size}", "ADE20K", f"{OPENMMLAB}/segnext/{run}/{run}_{end}.pth", miou
        )
        for size, run, end, miou in (
            ("t", ADE20K_RUN.format("t"), "20230210_140244-05bd8466", 41.50),
            ("s", ADE20K_RUN.format("s"), "20230214_113014-43013668", 44.16),
            ("b", ADE20K_RUN.format("b"), "20230209_172053-b6f6c70c", 48.03),
            ("l", ADE20K_RUN.format("l"), "20230209_172055-19b14b63", 50.99),
        )
    ),
)
