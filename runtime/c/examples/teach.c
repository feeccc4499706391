/* SPDX-License-Identifier: Apache-2.0 */
/* A device with a button: frames come on stdin, and are classified; while the button is held
 * (here: the first COUNT frames) they teach a class instead.
 *
 *   teach MODEL WIDTHxHEIGHT CLASS COUNT < frames.rgb */
#include <edge_imprint.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(void)
{
    fprintf(stderr, "%s\n", ei_last_error());
    return 1;
}

int main(int argc, char **argv)
{
    ei_image camera = {.format = EI_RGB8};
    if (argc != 5 || sscanf(argv[2], "%dx%d", &camera.width, &camera.height) != 2 ||
        camera.width < 1 || camera.width > 8192 || camera.height < 1 || camera.height > 8192)
        return fprintf(stderr, "teach MODEL WIDTHxHEIGHT CLASS COUNT < frames.rgb\n"), 2;

    ei_model *model = NULL;
    ei_description about = {.size = sizeof about};
    if (ei_open(argv[1], NULL, &model) || ei_describe(model, &about))
        return failed();

    /* A frame as the camera has it, and what the network sees of it. */
    size_t frame_bytes = (size_t)camera.width * camera.height * 3;
    size_t pixel_bytes = (size_t)about.width * about.height * 3;
    uint8_t *frame = malloc(frame_bytes), *pixels = malloc(pixel_bytes);
    if (!frame || !pixels)
        return 1;
    camera.data = frame;
    ei_image seen = {pixels, about.width, about.height, EI_RGB8, 0, NULL};

    ei_predictions *found = NULL; /* used again for each frame */
    for (int number = 0; fread(frame, frame_bytes, 1, stdin) == 1; number++) {
        if (ei_prepare(model, &camera, pixels, pixel_bytes))
            return failed();
        if (number < atoi(argv[4])) {
            if (ei_teach(model, argv[3], &seen, 1, 0)) /* one photo more: the class gets better */
                return failed();
            continue;
        }
        if (ei_predict(model, &seen, 1, &found))
            return failed();
        printf("%d %s\n", number, ei_prediction_at(found, 0)->label);
    }
    if (ei_save_head(model, NULL)) /* else it is forgotten when the program ends */
        return failed();
    ei_free_predictions(found);
    ei_close(model);
    free(frame);
    free(pixels);
    return 0;
}
