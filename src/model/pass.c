#include "model/pass.h"

bg_status bg_pass_layer(const bg_pass *p, const bg_parameter *parameter, bg_linear args)
{
    const bg_model *m = p->run->model;
    args.weight = parameter->weight;
    args.bias = parameter->bias;
    args.n_rows = p->n_rows;
    if (p->run->apart) {
        args.sequences = p->sequences;
        args.n_sequences = p->n_sequences;
    }
    return m->backend->ops->linear(m->backend, &args, p->err);
}

bg_status bg_pass_linear(const bg_pass *p, const bg_parameter *parameter, const bg_act *in,
                         bg_activation activation, const bg_act *residual, bg_act *out,
                         size_t out_col)
{
    return bg_pass_layer(p, parameter,
                         (bg_linear){.in = in,
                                     .activation = activation,
                                     .residual = residual,
                                     .out = out,
                                     .out_col = out_col});
}
