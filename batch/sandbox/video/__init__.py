"""Small playable videos that show their prompt, written without any library.

`render` in `clips` is the face: a prompt, a footer, a ratio and a length in, a `Clip` out. `font`
draws the letters, `h264` encodes the picture and its growing bar, `mp4` writes the file around the
samples; `padded` makes a file of any size without holding it in memory. Equal arguments return equal
bytes, so a video needs no storage and survives a restart.
"""
