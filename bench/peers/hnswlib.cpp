// hnswlib's HierarchicalNSW, from the headers in the npm package hnswlib-node.
#include "driver.hpp"

#include "hnswlib/hnswlib.h"

namespace {

hnswlib::DISTFUNC<float> real_distance;
int64_t counted;

float counting_distance(const void* a, const void* b, const void* param) {
    counted++;
    return real_distance(a, b, param);
}

class Filter : public hnswlib::BaseFilterFunctor {
  public:
    const driver::Eligible* eligible = nullptr;
    bool operator()(hnswlib::labeltype row) override { return eligible->has(row); }
};

class Hnswlib : public driver::Engine {
  public:
    void build(const driver::Matrix& base, const driver::Config& c) override {
        if (c.inner_product)
            space_ = std::make_unique<hnswlib::InnerProductSpace>(base.dim);
        else
            space_ = std::make_unique<hnswlib::L2Space>(base.dim);
        index_ = std::make_unique<hnswlib::HierarchicalNSW<float>>(space_.get(), base.rows, c.m, c.ef_construction);
        real_distance = index_->fstdistfunc_;
        driver::each(base.rows, c.threads, [&](size_t row, size_t) { index_->addPoint(base.row(row), row); });
    }

    void set_ef(size_t ef) override { index_->setEf(ef); }

    void allow(const driver::Eligible* eligible) override { filter_.eligible = eligible; }

    size_t search(const float* query, size_t k, int32_t* rows) override {
        counted = 0;
        auto found = index_->searchKnn(query, k, filter_.eligible ? &filter_ : nullptr);
        size_t n = found.size();
        for (size_t i = n; i-- > 0; found.pop()) rows[i] = int32_t(found.top().second);
        return n;
    }

    void count_distances(bool on) override { index_->fstdistfunc_ = on ? counting_distance : real_distance; }
    int64_t distances() override { return counted; }

  private:
    std::unique_ptr<hnswlib::SpaceInterface<float>> space_;
    std::unique_ptr<hnswlib::HierarchicalNSW<float>> index_;
    Filter filter_;
};

}  // namespace

TANDEM_DRIVER(Hnswlib)
