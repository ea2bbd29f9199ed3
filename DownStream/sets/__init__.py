"""The segmentation data sets, each in a file of its own."""

from DownStream.sets import (
    chase_db1,
    ddr_lesions,
    drishti_gs,
    drive,
    fives,
    generic,
    hrf,
    idrid,
    refuge,
    rim_one_r3,
    stare,
)

CATALOGUE = {
    "drive": drive.SET,
    "stare": stare.SET,
    "rim-one-r3": rim_one_r3.SET,
    "drishti-gs": drishti_gs.SET,
    "idrid": idrid.SET,
    "chase-db1": chase_db1.SET,
    "ddr-lesions": ddr_lesions.SET,
    "hrf": hrf.SET,
    "fives": fives.SET,
    "refuge": refuge.SET,
    "generic": generic.SET,
}
