#include "sae/recipe.h"
