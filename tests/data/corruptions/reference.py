"""The published corruptions image by image, in plain NumPy and SciPy: slow, and as close to the definitions as can be.

Images are uint8 (H, W, C); the random draws of one image come from the project's own functions, without their first
dimension. What the published code takes from OpenCV and ImageMagick is written out from its documentation.
"""

import io

import numpy as np
import scipy.ndimage as ndi
from PIL import Image
from scipy import stats


def as_bytes(values):
    return np.uint8(np.clip(values, 0, 1) * 255)


def skimage_gaussian(image, sigma, mode="nearest", truncate=4.0):
    sigmas = (sigma, sigma, 0) if image.ndim == 3 else sigma
    return ndi.gaussian_filter(image, sigmas, mode=mode, truncate=truncate)


def gray(image):
    return image @ [0.299, 0.587, 0.114] if image.shape[2] == 3 else image[..., 0]


def clipped_zoom(image, factor):
    size = image.shape[0]
    crop = int(np.ceil(size / factor))
    top = (size - crop) // 2
    middle = image[top : top + crop, top : top + crop]
    # Of newer SciPy versions 'constant', the default, may lose the last row to rounding; 'nearest' cannot.
    zoomed = ndi.zoom(middle, (factor, factor, 1), order=1, mode="nearest")
    trim = (zoomed.shape[0] - size) // 2
    return zoomed[trim : trim + size, trim : trim + size]


# --- noise -----------------------------------------------------------------------------------------------


def gaussian_noise(image, sigma, normal):
    return as_bytes(image / 255 + sigma * normal.transpose(1, 2, 0))


def speckle_noise(image, sigma, normal):
    return as_bytes(image / 255 + image / 255 * sigma * normal.transpose(1, 2, 0))


def shot_noise(image, photons, uniform):
    counts = stats.poisson.ppf(uniform.transpose(1, 2, 0).astype(float), image / 255 * photons)
    return as_bytes(np.maximum(counts, 0) / photons)  # SciPy's inverse of 0 is -1


def impulse_noise(image, amount, uniform):
    uniform, noisy = uniform.transpose(1, 2, 0), image.copy()
    noisy[uniform < amount / 2] = 0
    noisy[uniform >= 1 - amount / 2] = 255
    return noisy


# --- blur ------------------------------------------------------------------------------------------------


def gaussian_blur(image, sigma):
    return as_bytes(skimage_gaussian(image / 255, sigma))


def defocus_blur(image, radius, edge):
    line, width = (np.arange(-8, 9), 3) if radius <= 8 else (np.arange(-radius, radius + 1), 5)
    x, y = np.meshgrid(line, line)
    disk = (x**2 + y**2 <= radius**2).astype(float)
    weights = np.exp(-((np.arange(width) - width // 2) ** 2) / (2 * edge**2))
    weights /= weights.sum()
    kernel = ndi.correlate(disk / disk.sum(), np.outer(weights, weights), mode="mirror")
    return as_bytes(np.stack([ndi.correlate(c, kernel, mode="mirror") for c in (image / 255).transpose(2, 0, 1)], 2))


def glass_blur(image, sigma, reach, passes, moves):
    x = np.uint8(skimage_gaussian(image / 255, sigma) * 255)
    height, width = x.shape[:2]
    for number in range(passes):
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                dx, dy = (int(np.floor(u * 2 * reach)) - reach for u in moves[number, :, h, w])
                here, there = x[h, w], x[h + dy, w + dx]  # views, as in the published exchange
                here[:], there[:] = there, here
    return as_bytes(skimage_gaussian(x / 255, sigma))


def magick_motion_blur(image, radius, sigma, degrees):
    width = 2 * int(np.ceil(radius)) + 1
    kernel = np.exp(-(np.arange(width) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()
    angle = np.deg2rad(float(degrees))
    rows, columns = np.arange(image.shape[0]), np.arange(image.shape[1])
    blurred = np.zeros(image.shape)
    for step, weight in enumerate(kernel):
        down, right = (int(np.ceil(step * f - 0.5)) for f in (np.sin(angle), np.cos(angle)))
        shifted = image[np.clip(rows + down, 0, rows[-1])][:, np.clip(columns + right, 0, columns[-1])]
        blurred += weight * shifted
    deep = np.floor(257 * blurred + 0.5)  # 16 bits, in which it calculates
    return np.uint8(np.floor(deep / 257))


def motion_blur(image, radius, sigma, degrees):
    return magick_motion_blur(image, radius, sigma, degrees)


def zoom_blur(image, end, step):
    x = image / 255
    factors = np.arange(1, end, step)
    return as_bytes((x + sum(clipped_zoom(x, factor) for factor in factors)) / (len(factors) + 1))


# --- weather ---------------------------------------------------------------------------------------------


def snow(image, mean, sigma, zoom, threshold, radius, blur, weight, flakes, degrees):
    layer = clipped_zoom(mean + sigma * flakes[0].astype(float)[..., None], zoom)
    layer[layer < threshold] = 0
    layer = magick_motion_blur(as_bytes(layer), radius, blur, degrees) / 255
    x = image / 255
    x = weight * x + (1 - weight) * np.maximum(x, gray(x)[..., None] * 1.5 + 0.5)
    return as_bytes(x + layer + np.rot90(layer, 2))


def frost(image, weight, frost_weight, scale, crops):
    texture = crops.transpose(1, 2, 0).astype(float)
    if image.shape[2] == 1:
        texture = gray(texture)[..., None]
    return np.uint8(np.clip(weight * image + frost_weight * texture, 0, 255))


def plasma(wobble, decay):
    side = len(wobble)
    heights = np.zeros((side, side))
    step, roughness = side, 100.0
    while step >= 2:
        half = step // 2

        def mean_of(places, at, roughness=roughness):
            corners = [heights[y % side, x % side] for y, x in places]
            return sum(corners) / 4 + roughness * roughness * wobble[at]

        starts = range(0, side, step)
        for y in starts:
            for x in starts:
                around = [(y, x), (y + step, x), (y, x + step), (y + step, x + step)]
                heights[y + half, x + half] = mean_of(around, (y + half, x + half))
        for y in starts:
            for x in starts:
                for cy, cx in ((y, x + half), (y + half, x)):
                    around = [(cy - half, cx), (cy + half, cx), (cy, cx - half), (cy, cx + half)]
                    heights[cy, cx] = mean_of(around, (cy, cx))
        step, roughness = half, roughness / decay
    heights -= heights.min()
    return heights / heights.max()


def fog(image, amount, decay, wobble):
    x = image / 255
    brightest = x.max()
    x = x + amount * plasma(wobble.astype(float), decay)[: x.shape[0], : x.shape[1], None]
    return as_bytes(x * brightest / (brightest + amount))


def spatter(image, mean, sigma, blur, threshold, strength, mud, liquid):
    x = image / 255
    layer = skimage_gaussian(mean + sigma * liquid[0].astype(float), blur)
    layer[layer < threshold] = 0
    color = np.array([63, 42, 20] if mud else [175, 238, 238]) / 255
    if image.shape[2] == 1:
        color = color @ [[0.299], [0.587], [0.114]]
    if mud:
        cover = skimage_gaussian((layer > threshold).astype(float), strength)
        cover[cover < 0.8] = 0
        return as_bytes(x * (1 - cover[..., None]) + color * cover[..., None])
    layer = (layer * 255).astype(np.uint8)
    distance = equalize(np.uint8(box(np.minimum(chamfer(canny(layer, 50, 150)), 20))))
    shade = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    shaded = np.clip(ndi.correlate(distance.astype(int), shade, mode="mirror"), 0, 255)
    light = layer * np.rint(box(shaded))
    if light.max() > 0:
        light = light / light.max()
    return as_bytes(x + strength * light[..., None] * color)


def canny(image, low, high):
    """Edges as the OpenCV documentation describes them: Sobel, L1 norm, thinning along the gradient, hysteresis."""
    padded = np.pad(image.astype(int), 1, mode="edge")
    height, width = image.shape
    gx, gy = np.zeros((2, height, width), int)
    for y in range(height):
        for x in range(width):
            window = padded[y : y + 3, x : x + 3]
            gx[y, x] = (window[:, 2] - window[:, 0]) @ [1, 2, 1]
            gy[y, x] = (window[2] - window[0]) @ [1, 2, 1]
    strength = np.pad(abs(gx) + abs(gy), 1)
    edge = np.zeros((height, width), int)  # 1 weak, 2 strong
    for y in range(height):
        for x in range(width):
            own = strength[y + 1, x + 1]
            if own <= low:
                continue
            slope = abs(gy[y, x]) / abs(gx[y, x]) if gx[y, x] else np.inf
            if slope < np.tan(np.pi / 8):
                thin = own > strength[y + 1, x] and own >= strength[y + 1, x + 2]
            elif slope > np.tan(3 * np.pi / 8):
                thin = own > strength[y, x + 1] and own >= strength[y + 2, x + 1]
            elif gx[y, x] * gy[y, x] > 0:
                thin = own > strength[y, x] and own > strength[y + 2, x + 2]
            else:
                thin = own > strength[y, x + 2] and own > strength[y + 2, x]
            edge[y, x] = (1 + (own > high)) if thin else 0
    labels, _ = ndi.label(edge > 0, np.ones((3, 3)))
    return np.isin(labels, np.unique(labels[edge == 2])) & (edge > 0)


def box(image):
    return np.float32(ndi.correlate(image.astype(float), np.ones((3, 3)), mode="mirror") / 9)


def chamfer(edges):
    """Distance to the nearest edge in the 5×5 chamfer metric, in closed form; 16 binary digits after the point."""
    straight, diagonal, knight = 65536, round(1.4 * 65536), round(2.1969 * 65536)
    rows, columns = np.mgrid[: edges.shape[0], : edges.shape[1]]
    distance = np.full(edges.shape, np.inf)
    for row, column in np.argwhere(edges):
        down, right = abs(rows - row), abs(columns - column)
        short, long = np.minimum(down, right), np.maximum(down, right)
        knights = np.minimum(short, long - short)  # moves (1, 2), and then diagonal or straight ones
        rest = diagonal * np.maximum(2 * short - long, 0) + straight * np.maximum(long - 2 * short, 0)
        distance = np.minimum(distance, (knight * knights + rest) / 65536)
    return np.float32(distance)


def equalize(image):
    counts = np.bincount(image.ravel(), minlength=256)
    lowest = image.min()
    rest = image.size - counts[lowest]
    if rest == 0:
        return image
    table = np.rint((counts.cumsum() - counts[lowest]).astype(np.float32) * (np.float32(255) / np.float32(rest)))
    return np.uint8(np.maximum(table, 0)[image])


# --- digital ---------------------------------------------------------------------------------------------


def with_hsv(image, change):
    """Pixel by pixel through hue, saturation and value (Smith 1978)."""
    out = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        r, g, b = image[place] / 255
        value, span = max(r, g, b), max(r, g, b) - min(r, g, b)
        hue = 0.0
        if span:
            if value == r:
                hue = (g - b) / span % 6
            if value == g:
                hue = (b - r) / span + 2
            if value == b:
                hue = (r - g) / span + 4
        saturation, value = change(span / value if value else 0.0, value)
        sector, f = int(hue), hue - int(hue)
        p, q, t = value * (1 - saturation), value * (1 - f * saturation), value * (1 - (1 - f) * saturation)
        table = [(value, t, p), (q, value, p), (p, value, t), (p, q, value), (t, p, value), (value, p, q)]
        out[place] = table[sector % 6]
    return as_bytes(out)


def brightness(image, added):
    if image.shape[2] == 1:
        return as_bytes(image / 255 + added)
    return with_hsv(image, lambda s, v: (s, np.clip(v + added, 0, 1)))


def saturate(image, factor, added):
    if image.shape[2] == 1:
        return image
    return with_hsv(image, lambda s, v: (np.clip(factor * s + added, 0, 1), v))


def contrast(image, factor):
    x = image / 255
    mean = x.mean((0, 1))
    return as_bytes((x - mean) * factor + mean)


def elastic_transform(image, amplitude, sigma, jitter, corners, field):
    x = image / 255
    height, width, channels = x.shape
    side = min(height, width)
    center, reach = np.array([height // 2, width // 2]), side // 3
    before = np.array([center + reach, [center[0] + reach, center[1] - reach], center - reach], float)
    after = before + corners.astype(float) * jitter * side
    matrix = np.linalg.solve(np.c_[before, np.ones(3)], after).T  # (x, y, 1) before -> (x, y) after
    inverse = np.linalg.inv(np.r_[matrix, [[0, 0, 1]]])
    rows, columns = np.mgrid[:height, :width]
    source = np.einsum("ij,jyx->iyx", inverse, np.stack([columns, rows, np.ones_like(rows)]))
    places = [source[1], source[0]]
    turned = [ndi.map_coordinates(x[..., c], places, order=1, mode="mirror") for c in range(channels)]
    dx, dy = (skimage_gaussian(f.astype(float), sigma * side, "reflect", 3) * amplitude * side for f in field)
    bent = [ndi.map_coordinates(c, [rows + dy, columns + dx], order=1, mode="reflect") for c in turned]
    return as_bytes(np.stack(bent, 2))


def pixelate(image, share):
    height, width, channels = image.shape
    picture = Image.fromarray(image.squeeze(2) if channels == 1 else image)
    picture = picture.resize((int(width * share), int(height * share)), Image.Resampling.BOX)
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX)).reshape(image.shape)


def jpeg_compression(image, quality):
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).reshape(image.shape)
