r"""CIFAR-10 as published for conformal unlearning: ResNet-18, 5,000 of the training pictures forgotten.

    python -m launch.targets --config=configs/conformal_cifar10.py              the original and an exact retrain
    python -m launch.unlearn --config=configs/conformal_cifar10.py --methods=finetune,random_label,finetune+conformal
    python -m launch.evaluate --config=configs/conformal_cifar10.py             UA, RA, TA, MIA, CR, MIACR
    python -m launch.unlearn --config=configs/conformal_cifar10.py --config.data.path=cifar10.npz     without TFDS
    python -m launch.unlearn --config=configs/conformal_cifar10.py:smoke        a narrow ResNet, 600 rows
    python -m launch.unlearn --config=configs/conformal_cifar10.py:small        2,000 pictures: the public reproduction
    python -m launch.unlearn --config=configs/conformal_cifar10.py:vgg16        VGG-16 of 134 million parameters
    python -m launch.unlearn --config=configs/conformal_cifar10.py:paper        seed 10, with the published quirks

SGD 0.1, momentum 0.9, weight decay 5e-4 on every parameter, batch 64, cosine over 200 epochs; flip, crop, one picture
in ten grey. Of the held-out pictures, 8,000 are for testing, the other 2,000 for calibration. The published model
trains on all 50,000; here the minimum of two rows goes to a token shadow model, so that 49,998 remain. The audit's
membership scores need real shadow models: configs/cifar10.py. Exact retraining repeats the recipe; the published one
uses 0.01. Nothing is published for VGG-16; without batch norm it is unstable at rate 0.1, so it trains at 0.01.

Published (from public summaries of the paper, not from its tables): original TA 91.8 %; UA of fine-tuning 3.84 %;
forgotten but still in the prediction set, of the misclassified forgotten pictures: retraining 30.6 %, fine-tuning 58.3
%, random labels 45.5 %; coverage of forgotten pictures after retraining about 0.94 at alpha 0.05. The conformal loss
with lambda 0.5 adds 3.93 points of UA (mean of these three) for 1.0 point of TA.

Published for `small` (public reproduction; original: train accuracy 1.00, TA .483; evaluated at alpha 0.1; the loss is
that of --config.unlearn.conformal.pairwise=True --config.unlearn.conformal.lam=0.5):

    method                    UA %     set size, CR forgotten    set size, CR test
    retraining                53.5     4.32   .206               4.20   .214
    fine-tuning                3.5     2.67   .375               4.00   .223
    random labels             66.0     5.61   .172               5.32   .168
    ascent (rate 1e-4)         0.5     2.19   .457               4.15   .214
    bad teacher               92.5     8.00   .098               8.00   .100
    SSD                        0.0     2.15   .465               4.19   .213
    NegGrad+                   7.0     2.58   .388               3.85   .231
    SalUn                     65.0     6.05   .161               5.42   .165
    conformal fine-tuning     4.0 -> 34.5 with lambda 0 -> 0.5; CR forgotten .369 -> .287, test .221 -> .221
    conformal random labels   67.0 -> 90.5;                     CR forgotten .159 -> .135, test .161 -> .155

Measured with `cnn` (JPEG re-encoded pictures, seed 42, 5 forget sets, 8,000 test pictures; original: train accuracy
.996, TA .423; one core of an AMD EPYC, jax 0.10.2: 9 min with training, 15 min more for the study):

    python -m launch.evaluate --config=configs/conformal_cifar10.py:cnn --config.data.path=cifar10.npz \
        --config.unlearn.methods=finetune,random_label,ascent,bad_teacher,ssd,negrad_plus,salun
    python -m launch.study --config=configs/conformal_cifar10.py:cnn --config.data.path=cifar10.npz \
        --config.study.kind=conformal --config.unlearn.methods=retrain,finetune,random_label \
        --config.unlearn.conformal.pairwise=True --config.unlearn.conformal.batch=4

    method                    UA %     set size, CR forgotten    set size, CR test    recover ratio  MIACR
    retraining                60.4     5.67   .158               5.54   .163          .828           .061
    fine-tuning                1.4     3.98   .252               5.23   .172          1.00           .000
    random labels             69.7     9.30   .105               6.40   .140          .967           .009
    ascent (rate 1e-4)         0.6     3.88   .258               5.33   .169          1.00           .000
    bad teacher               70.7     8.27   .116               7.60   .118          .945           .011
    SSD                        0.6     3.88   .258               5.33   .169          1.00           .000
    NegGrad+                   0.6     3.87   .258               5.31   .170          1.00           .000
    SalUn                     53.1     8.25   .118               6.14   .146          .953           .011
    conformal retraining      61.4 -> 89.5; CR forgotten .156 -> .144, test .158 -> .159, TA .397 -> .392
    conformal fine-tuning      1.4 -> 20.7; CR forgotten .252 -> .248, test .172 -> .172, TA .432 -> .430
    conformal random labels   69.7 -> 82.1; CR forgotten .105 -> .105, test .140 -> .140, TA .395 -> .392

Agreement with the reproduction: UA of retraining, fine-tuning, random labels, ascent and SSD to a few points; CR on
forgotten pictures falls from SSD, ascent and fine-tuning over retraining to random labels, SalUn and the bad teacher,
which lowers it most on test pictures too; coverage of test pictures .896 to .902; recover ratio fine-tuning > random
labels > retraining; MIACR of retraining about its alpha of .05; the loss raises UA by 12 to 28 points and costs half a
point of TA at most. Disagreement: all sets are larger (the CNN is more confident and less accurate), the loss
hardly lowers CR on forgotten pictures; rates and epochs of the reproduction's methods are not known.
"""

from jaxunlearn import settings


def get_config(variant: str = ""):
    """Returns the config of a variant: default, smoke, small, cnn, vgg16 or paper."""
    config = settings.defaults("conformal")
    config.data.name = "cifar10"
    config.split.forget.size = 5000
    return settings.variant(config, variant, {
        "smoke": {"data.train_rows": 600, "data.test_rows": 200, "split.test": 0, "split.forget.size": 60,
                  "model.width": 8, "train.epochs": 2},
        # 2,000 target rows and the two of the shadow set.
        "small": {"data.train_rows": 2002, "data.augment": "flip", "split.forget.size": 200,
                  "train.learning_rate": 0.05, "train.epochs": 40, "train.batch": 32},
        # The same pictures and a small CNN, for a CPU: five forget sets, rates that do not destroy the model, all
        # from one original, as measured above.
        "cnn": {"data.train_rows": 2002, "data.augment": "flip", "split.forget.size": 200, "split.forget.count": 5,
                "targets.originals": "shared", "model.name": "cnn", "train.learning_rate": 0.05, "train.epochs": 40,
                "train.batch": 32,
                "unlearn.options": (
                    "retrain.epochs=40", "retrain.lr=0.05", "finetune.epochs=20", "finetune.lr=0.01",
                    "random_label.epochs=20", "random_label.lr=0.01", "ascent.lr=0.0001", "bad_teacher.epochs=5",
                    "bad_teacher.lr=0.001", "negrad_plus.lr=0.001", "salun.lr=0.01")},
        "vgg16": {"model.name": "vgg16_imagenet", "train.learning_rate": 0.01},
        "paper": settings.RECIPES["conformal_paper"],
    })  # fmt: skip
