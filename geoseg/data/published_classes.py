"""Classes of the published sets: names and official colours, channel k is entry k.

ADE20K: names and colours of the scene-parsing benchmark (CSAILVision/sceneparsing), shortened as
in mmsegmentation, whose lists the COCO-Stuff colours are taken from too. Cityscapes: its
cityscapesScripts. VOC: its development kit's colour map. CamVid: the SegNet tutorial.
LandCover.ai: TorchGeo's colours.
"""

from geoseg.spec import ClassSpec


def _classes(text: str) -> tuple[ClassSpec, ...]:
    """Return the classes of a list of names, each followed by its colour."""
    parts = (item.rsplit(maxsplit=1) for item in text.split(","))
    return tuple(ClassSpec(k, name.strip(), f"#{color}") for k, (name, color) in enumerate(parts))


LANDCOVERAI = _classes("""
background 000000, building 614A4A, woodland 267300, water 00C5FF, road CFCFCF
""")

CAMVID = _classes("""
sky 808080, building 800000, pole C0C080, road 804080, pavement 3C28DE, tree 808000,
sign symbol C08080, fence 404080, car 400080, pedestrian 404000, bicyclist 0080C0
""")

CITYSCAPES = _classes("""
road 804080, sidewalk F423E8, building 464646, wall 66669C, fence BE9999, pole 999999,
traffic light FAAA1E, traffic sign DCDC00, vegetation 6B8E23, terrain 98FB98, sky 4682B4,
person DC143C, rider FF0000, car 00008E, truck 000046, bus 003C64, train 005064,
motorcycle 0000E6, bicycle 770B20
""")

VOC = _classes("""
background 000000, aeroplane 800000, bicycle 008000, bird 808000, boat 000080, bottle 800080,
bus 008080, car 808080, cat 400000, chair C00000, cow 408000, diningtable C08000, dog 400080,
horse C00080, motorbike 408080, person C08080, pottedplant 004000, sheep 804000, sofa 00C000,
train 80C000, tvmonitor 004080
""")

ADE20K = _classes("""
wall 787878, building B47878, sky 06E6E6, floor 503232, tree 04C803, ceiling 787850, road 8C8C8C,
bed CC05FF, windowpane E6E6E6, grass 04FA07, cabinet E005FF, sidewalk EBFF07, person 96053D,
earth 787846, door 08FF33, table FF0652, mountain 8FFF8C, plant CCFF04, curtain FF3307,
chair CC4603, car 0066C8, water 3DE6FA, painting FF0633, sofa 0B66FF, shelf FF0747, house FF09E0,
sea 0907E6, mirror DCDCDC, rug FF095C, field 7009FF, armchair 08FFD6, seat 07FFE0, fence FFB806,
desk 0AFF47, rock FF290A, wardrobe 07FFFF, lamp E0FF08, bathtub 6608FF, railing FF3D06,
cushion FFC207, base FF7A08, box 00FF14, column FF0829, signboard FF0599, chest of drawers 0633FF,
counter EB0CFF, sand A09614, sink 00A3FF, skyscraper 8C8C8C, fireplace FA0A0F,
refrigerator 14FF00, grandstand 1FFF00, path FF1F00, stairs FFE000, runway 99FF00, case 0000FF,
pool table FF4700, pillow 00EBFF, screen door 00ADFF, stairway 1F00FF, river 0BC8C8,
bridge FF5200, bookcase 00FFF5, blind 003DFF, coffee table 00FF70, toilet 00FF85, flower FF0000,
book FFA300, hill FF6600, bench C2FF00, countertop 008FFF, stove 33FF00, palm 0052FF,
kitchen island 00FF29, computer 00FFAD, swivel chair 0A00FF, boat ADFF00, bar 00FF99,
arcade machine FF5C00, hovel FF00FF, bus FF00F5, towel FF0066, light FFAD00, truck FF0014,
tower FFB8B8, chandelier 001FFF, awning 00FF3D, streetlight 0047FF, booth FF00CC,
television receiver 00FFC2, airplane 00FF52, dirt track 000AFF, apparel 0070FF, pole 3300FF,
land 00C2FF, bannister 007AFF, escalator 00FFA3, ottoman FF9900, bottle 00FF0A, buffet FF7000,
poster 8FFF00, stage 5200FF, van A3FF00, ship FFEB00, fountain 08B8AA, conveyer belt 8500FF,
canopy 00FF5C, washer B800FF, plaything FF001F, swimming pool 00B8FF, stool 00D6FF, barrel FF0070,
basket 5CFF00, waterfall 00E0FF, tent 70E0FF, bag 46B8A0, minibike A300FF, cradle 9900FF,
oven 47FF00, ball FF00A3, food FFCC00, step FF008F, tank 00FFEB, trade name 85FF00,
microwave FF00EB, pot F500FF, animal FF007A, bicycle FFF500, lake 0ABED4, dishwasher D6FF00,
screen 00CCFF, blanket 1400FF, sculpture FFFF00, hood 0099FF, sconce 0029FF, vase 00FFCC,
traffic light 2900FF, tray 29FF00, ashcan AD00FF, fan 00F5FF, pier 4700FF, crt screen 7A00FF,
plate 00FFB8, monitor 005CFF, bulletin board B8FF00, shower 0085FF, radiator FFD600, glass 19C2C2,
clock 66FF00, flag 5C00FF
""")

COCO_STUFF = _classes("""
person 00C040, bicycle 00C040, car 004060, motorcycle 80C0C0, airplane 004040, bus 00C0E0,
train 00C0C0, truck 80C040, boat 00C060, traffic light 80C040, fire hydrant 8020C0,
stop sign 0000E0, parking meter 000040, bench 00A0C0, bird 800060, cat 8000C0, dog 0020C0,
horse 8080E0, sheep 0000C0, cow 80A0C0, elephant 808000, bear 800020, zebra 802000,
giraffe 800080, backpack 408020, umbrella 00A000, handbag 000000, tie C080A0, suitcase 002000,
frisbee 008080, skis 4080A0, snowboard 80A000, sports ball 008000, kite C08020,
baseball bat 806080, baseball glove 000080, skateboard 400020, surfboard 00E080,
tennis racket 800000, bottle C000A0, wine glass 006080, cup 808080, fork 4000A0, knife 80E080,
spoon 808040, bowl C00020, banana 806000, apple 8000C0, sandwich 008020, orange 40E000,
broccoli 000040, carrot 8080A0, hot dog 406000, pizza 0080C0, donut 0080A0, cake C0E000,
chair 008040, couch 808020, potted plant C02080, bed 0040C0, dining table 000020, toilet 40A080,
tv 804040, laptop 8000A0, mouse 402080, remote 80C0C0, keyboard 0000A0, cell phone C0A080,
microwave 80C000, oven 800060, toaster C02000, sink 804080, refrigerator 408060, book 40A000,
clock 004000, vase C080E0, scissors 402000, teddy bear 00C080, hair drier 4080E0,
toothbrush C0A000, banner 00C000, blanket C08060, branch C06080, bridge 004080,
building-other 400060, bush 40E080, cabinet 804000, cage C000E0, cardboard 406080, carpet 80C080,
ceiling-other 4000E0, ceiling-tile C0E080, cloth 80C040, clothes C00060, clouds C06000,
counter 8040C0, cupboard 008060, curtain 00E000, desk-stuff 404040, dirt 8080E0,
door-stuff 006000, fence 40C0C0, floor-marble 0080E0, floor-other 80E000, floor-stone 40C040,
floor-tile 808060, floor-wood 802080, flower 4000C0, fog 004060, food-other 00A080, fruit C00040,
furniture-other 8040E0, grass 002080, gravel C080C0, ground-other 0040E0, hill 80A080,
house C08000, leaves 804020, light 802040, mat C00080, metal 40C020, mirror-stuff 00A040,
moss 400000, mountain C0C0A0, mud 002040, napkin 408080, net 40C0A0, paper 80A040,
pavement 408000, pillow C0C020, plant-other 8060C0, plastic 400080, platform 404020,
playingfield 00E0C0, railing C00000, railroad C040A0, river 0060C0, road C08080, rock 4040A0,
roof 80E0C0, rug C08040, salad C04020, sand 806040, sea C000C0, shelf 00C020, sky-other 40E040,
skyscraper 400040, snow 80C0A0, solid-other 406040, stairs 4080C0, stone 00C0A0, straw C0E040,
structural-other 408040, table 80C020, tent C020C0, textile-other 4040C0, towel 004020,
tree 40A0C0, vegetable C04040, wall-brick 8040A0, wall-concrete 4020C0, wall-other C0C0C0,
wall-panel 0040A0, wall-stone C0A0C0, wall-tile C0C000, wall-wood 804060, water-other C02040,
waterdrops C04080, window-blind 40C060, window-other 40A040, wood 404000
""")
