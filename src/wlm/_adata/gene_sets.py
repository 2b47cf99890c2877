"""Genes of cells that divide and of cells that die."""

from __future__ import annotations

#: Symbols that differ from the human one by more than their case.
_MOUSE = {
    "TP53": "Trp53",
    "TP53I3": "",
    "TP53AIP1": "",
    "TNFRSF10A": "",
    "CASP10": "",
}

#: Genes of the phases S and G2/M, of single tumour cells (Tirosh et al. 2016, Science 352:189).
PROLIFERATION = tuple(
    """
    MCM5 PCNA TYMS FEN1 MCM2 MCM4 RRM1 UNG GINS2 MCM6 CDCA7 DTL PRIM1 UHRF1 MLF1IP HELLS RFC2 RPA2 NASP RAD51AP1 GMNN
    WDR76 SLBP CCNE2 UBR7 POLD3 MSH2 ATAD2 RAD51 RRM2 CDC45 CDC6 EXO1 TIPIN DSCC1 BLM CASP8AP2 USP1 CLSPN POLA1 CHAF1B
    BRIP1 E2F8 HMGB2 CDK1 NUSAP1 UBE2C BIRC5 TPX2 TOP2A NDC80 CKS2 NUF2 CKS1B MKI67 TMPO CENPF TACC3 FAM64A SMC4 CCNB2
    CKAP2L CKAP2 AURKB BUB1 KIF11 ANP32E TUBB4B GTSE1 KIF20B HJURP CDCA3 HN1 CDC20 TTK CDC25C KIF2C RANGAP1 NCAPD2
    DLGAP5 CDCA2 CDCA8 ECT2 KIF23 HMMR AURKA PSRC1 ANLN LBR CKAP5 CENPE CTCF NEK2 G2E3 GAS2L3 CBX5 CENPA
    """.split()
)
#: Genes that carry out apoptosis by either way, or are made by p53 to start it; none that prevents it (Elmore 2007,
#: Toxicol. Pathol. 35:495; Singh, Letai and Sarosiek 2019, Nat. Rev. Mol. Cell Biol. 20:175).
APOPTOSIS = tuple(
    """
    BAX BAK1 BOK BBC3 PMAIP1 BID BAD BIK BMF HRK BCL2L11 APAF1 DIABLO HTRA2 ENDOG AIFM2 CASP2 CASP3 CASP6
    CASP7 CASP8 CASP9 CASP10 DFFA DFFB FAS FASLG FADD TNFRSF10A TNFRSF10B TNFSF10 CRADD PIDD1 PERP TP53
    TP53I3 TP53AIP1 DAPK1 DAPK2
    """.split()
)
#: Names that came later.
RENAMED = {"MLF1IP": "CENPU", "FAM64A": "PIMREG", "HN1": "JPT1"}


def symbols(genes: tuple[str, ...], organism: str) -> list[tuple[str, ...]]:
    """The symbol of each gene in the organism, and those that it also has."""
    out = []
    for gene in genes:
        names = [gene, RENAMED[gene]] if gene in RENAMED else [gene]
        if organism == "mouse":
            names = [_MOUSE.get(name, name.capitalize()) for name in names]
        out.append(tuple(name for name in names if name))
    return [names for names in out if names]
