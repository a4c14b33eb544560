// usearch's index_dense, from the headers in the npm package usearch.
#include "driver.hpp"

#include <usearch/index_dense.hpp>

using namespace unum::usearch;

namespace {

class Usearch : public driver::Engine {
  public:
    void build(const driver::Matrix& base, const driver::Config& c) override {
        metric_punned_t metric(base.dim, c.inner_product ? metric_kind_t::ip_k : metric_kind_t::l2sq_k, scalar_kind_t::f32_k);
        index_dense_config_t config(c.m, c.ef_construction, c.ef_construction);
        config.enable_key_lookups = false;
        auto made = index_dense_t::make(metric, config);
        if (!made) throw std::runtime_error(made.error.release());
        index_ = std::move(made.index);
        index_limits_t limits(base.rows, c.threads);
        if (!index_.try_reserve(limits)) throw std::runtime_error("usearch: out of memory");
        std::cerr << "usearch: kernels " << metric.isa_name() << std::endl;
        driver::each(base.rows, c.threads, [&](size_t row, size_t thread) {
            auto added = index_.add(default_key_t(row), base.row(row), thread);
            if (!added) throw std::runtime_error(added.error.release());
        });
    }

    void set_ef(size_t ef) override { index_.change_expansion_search(ef); }

    void allow(const driver::Eligible* eligible) override { eligible_ = eligible; }

    size_t search(const float* query, size_t k, int32_t* rows) override {
        keys_.resize(k);
        const driver::Eligible* eligible = eligible_;
        auto found = eligible
            ? index_.filtered_search(query, k, [eligible](default_key_t row) noexcept { return eligible->has(row); }, 0)
            : index_.search(query, k, 0);
        if (!found) throw std::runtime_error(found.error.release());
        distances_ = int64_t(found.computed_distances);
        size_t n = found.dump_to(keys_.data());
        for (size_t i = 0; i < n; i++) rows[i] = int32_t(keys_[i]);
        return n;
    }

    int64_t distances() override { return distances_; }

  private:
    index_dense_t index_;
    const driver::Eligible* eligible_ = nullptr;
    std::vector<default_key_t> keys_;
    int64_t distances_ = -1;
};

}  // namespace

TANDEM_DRIVER(Usearch)
