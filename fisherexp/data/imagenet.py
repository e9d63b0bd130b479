"""ImageNet (ILSVRC 2012), from the folders that everyone unpacks it into."""

from fisherexp.data.image_folder import ImageFolder


class ImageNet(ImageFolder):
    """<path>/train/<class>/… and <path>/val/<class>/…, 1000 classes; the validation images serve as test images.

    Corrupted copies of these are taken from the folder ImageNet-C in the data folder where it is there. Images become
    their centered square, resized (the usual evaluation cuts a border of a sixteenth off; ImageNet-C comes cut).
    Options: see ImageFolder.
    """

    title = "ImageNet"
    name = "imagenet"
    test_folder = "val"
    published_corruptions = "ImageNet-C"
