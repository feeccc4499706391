/* SPDX-License-Identifier: Apache-2.0 */
/* The least that classifies: 224 x 224 pixels of RGB on stdin, the label on stdout. */
#include <edge_imprint.h>
#include <stdio.h>

int main(void)
{
    static unsigned char pixels[224 * 224 * 3];
    ei_model *model = NULL;
    ei_predictions *found = NULL;
    ei_image image = {.data = pixels, .width = 224, .height = 224, .format = EI_RGB8};
    if (fread(pixels, sizeof pixels, 1, stdin) != 1 || ei_open("shop.onnx", NULL, &model) ||
        ei_predict(model, &image, 1, &found))
        return fprintf(stderr, "%s\n", ei_last_error()), 1;
    puts(ei_prediction_at(found, 0)->label);
    ei_free_predictions(found);
    ei_close(model);
    return 0;
}
