"""How close is close enough. A tolerance is never widened to make a test pass; each says what it allows for."""

# float32 against float32 of another library, from the fixtures' own README: differences of rounding only.
NETWORK_RMS = 2e-5
NETWORK_MAX = 1e-4
LOSS_RELATIVE = 1e-5

# Frozen networks.
# Relative L2 norms of differences, float32 against another library's, from the fixtures' own README.
RESIZE = 3e-5
NETWORK = 2e-5
GRADIENT = 3e-4
LPIPS_VALUE = 1e-5
LPIPS_GRADIENT, LPIPS_GRADIENT_NORM = 1e-2, 1e-3  # where rounding decides a maximum or a sign, single entries change
INCEPTION = 1e-5
FID_CHAIN = 1e-3  # of the distance of two sets of features that the network computes
# Absolute differences.
DISTS_VALUE = 2e-6
SIMILARITY = 5e-5
SIMILARITY_TERMS = 1e-4
# Relative again.
SIMILARITY_GRADIENT = 5e-4

# float32 noise of gradient norms is up to 7e-6 in the fixtures; ours adds the order of summation.
GRADIENT_NORM_RELATIVE = 1e-4
