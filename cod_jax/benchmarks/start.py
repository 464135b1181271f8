"""Load a codec, compress and decompress one picture, and print the memory it took; for `codec.measure_start`."""

import json
import sys

import numpy as np

from cod_jax.benchmarks import timing
from cod_jax.compilation_cache import use_compilation_cache
from cod_jax.evaluation.processes import peak_memory_bytes


def main() -> None:
    """Run with the arguments CODEC FOLDER WIDTH HEIGHT; the last line on stdout is JSON."""
    use_compilation_cache()
    codec, folder, width, height = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    if codec == "compiled":
        from cod_jax.codec import load_compiled as load
    else:
        from cod_jax.codec import load
    loaded = load(folder, max_pixels=width * height)
    data = loaded.compress(image)
    encoded = peak_memory_bytes()
    loaded.decompress(data)
    facts = {
        "peak_memory_bytes": {"encoded": encoded, "decoded": peak_memory_bytes()},
        "peak_device_memory_bytes": timing.peak_device_memory_bytes(),
    }
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
