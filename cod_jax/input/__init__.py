"""Training and validation images: reading, cropping and ordering them."""
