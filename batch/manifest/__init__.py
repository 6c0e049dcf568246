"""A manifest becomes jobs, or every fault in it with its place. Nothing is sent or written.

    yaml_events yields the root's keys and values as nodes         text_files: bytes; nodes: places
    for each key, value of the root:
        `jobs`:  for each item:                                     one by one, not kept
                     jobs       check its keys, inherit `defaults`
                     rows       `from:`: a mapping for each row of a .csv, .jsonl or .txt file
                     cells      is a value an error that a spreadsheet left?
                     matrix     fill the placeholders, once per combination and variant
                     options    read each option; models: does the model take it? camera, values
                     texts      prompts and tags
                     ids        a file name that no other job has, or one made of the request
                     -> Job
        others:  keep the node
    a section that jobs inherit stands below them? once more
    head         limits, callback, base_url, prices from the kept nodes
    notify_section, output_section: who is told of a run; what is written beside the videos
    -> Manifest, or ManifestError with all `findings`

Every reader records what is wrong in `findings` and goes on, so that one reading reports all
faults; only an unreadable file ends it. `schema` describes the same keys for editors.

Public face: `load` in `reader`, `Manifest` in `model`, `Limits` and `Rate` in `limits`,
`manifest_schema` in `schema`.
"""

from __future__ import annotations
