"""Images in and out of messages."""

import array

import numpy as np
import pytest

from enpire_bringup.image_messages import ImageMessageError, fill_image, read_image, read_serialized_image

Image = pytest.importorskip('sensor_msgs.msg').Image
serialize_message = pytest.importorskip('rclpy.serialization').serialize_message


def image_of(encoding):
    rng = np.random.default_rng(0)
    shape = (48, 64, 3) if encoding in ('rgb8', 'bgr8') else (48, 64)
    dtype = {'16UC1': np.uint16, '32FC1': np.float32}.get(encoding, np.uint8)
    return (rng.uniform(0, 250, shape) * (100 if dtype == np.uint16 else 1)).astype(dtype)


@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'mono8', '16UC1', '32FC1'])
def test_what_is_filled_in_is_read_out(encoding):
    image, message = image_of(encoding), Image()
    fill_image(message, image, encoding)
    assert (message.height, message.width) == (48, 64)
    assert message.step * message.height == len(message.data)
    assert np.array_equal(read_image(message), image)
    assert read_image(message).dtype == image.dtype


@pytest.mark.parametrize('encoding', ['rgb8', '16UC1'])
@pytest.mark.parametrize('frame', ['', 'ab', 'top_camera'])
def test_a_serialized_image_is_read_as_its_message_would_be(encoding, frame):
    image, message = image_of(encoding), Image()
    fill_image(message, image, encoding)
    message.header.frame_id = frame
    message.header.stamp.sec, message.header.stamp.nanosec = 12, 345
    cdr = serialize_message(message)
    stamp, frame_id, pixels = read_serialized_image(cdr)
    assert (stamp, frame_id) == (12_000_000_345, frame) and np.array_equal(pixels, image)
    for broken in (b'', cdr[:30], cdr[:-20], b'\0\1\0\0' + b'\xff' * 60):
        with pytest.raises(ImageMessageError):
            read_serialized_image(broken)


def test_slices_of_a_larger_image_are_filled_in_whole():
    image, message = image_of('rgb8')[::2, ::-1], Image()
    fill_image(message, image, 'rgb8')
    assert np.array_equal(read_image(message), image)


def test_rows_may_be_padded_and_bytes_swapped():
    message = Image(height=2, width=2, encoding='16UC1', is_bigendian=1, step=6,
                    data=array.array('B', [1, 2, 3, 4, 0, 0, 5, 6, 7, 8, 0, 0]))
    assert read_image(message).tolist() == [[0x0102, 0x0304], [0x0506, 0x0708]]


def test_rgb_and_bgr_are_converted_into_each_other():
    image, message = image_of('rgb8'), Image()
    fill_image(message, image, 'rgb8')
    assert np.array_equal(read_image(message, 'bgr8'), image[:, :, ::-1])
    assert np.array_equal(read_image(message, 'rgb8'), image)
    with pytest.raises(ImageMessageError, match='image is rgb8; expected 32FC1'):
        read_image(message, '32FC1')


@pytest.mark.parametrize('fields, message', [
    ({'step': 10}, 'has a step of 10 bytes; expected at least 192'),
    ({'data': array.array('B', [0] * 5)}, 'has 5 bytes; expected 9216'),
    ({'encoding': 'yuv422'}, "image encoding 'yuv422' is not supported; supported: rgb8"),
    ({'height': 0}, '64x0'),
])
def test_messages_that_contradict_themselves_are_errors(fields, message):
    image = Image()
    fill_image(image, image_of('rgb8'), 'rgb8')
    for name, value in fields.items():
        setattr(image, name, value)
    with pytest.raises(ImageMessageError, match=message):
        read_image(image)


@pytest.mark.parametrize('image, encoding', [
    (np.zeros((4, 4), np.uint8), 'rgb8'), (np.zeros((4, 4, 3), np.uint8), 'mono8'),
    (np.zeros((4, 4, 4), np.uint8), 'rgb8'), (np.zeros((4, 4, 3), float), 'rgb8'),
    (np.zeros((4, 4), np.uint8), '16UC1')])
def test_arrays_that_do_not_fit_the_encoding_are_errors(image, encoding):
    with pytest.raises(ImageMessageError, match=f'is no {encoding}; expected'):
        fill_image(Image(), image, encoding)
