"""Rasterise the emoji art once into pretrain/data/sprites.npz: a training machine then needs no emoji packages."""

from common import HERE

from diffground.data.stickers.sprites import load_sprites, save_sprites

if __name__ == "__main__":
    (HERE / "data").mkdir(exist_ok=True)
    save_sprites(load_sprites(), HERE / "data" / "sprites.npz")
