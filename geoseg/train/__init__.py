"""Training; needs the extra ``train``. `geoseg.train.run.train` is the page to start from."""
